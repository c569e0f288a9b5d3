// Layers with matrix multiplications in bfloat16, one block of rows at a time: the products of a
// block are in float32 and in the second-level cache when bias, norm and activation are applied.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <iterator>
#include <tuple>
#include <vector>

#include "bf16.h"
#include "bf16_backward.h"
#include "rows.h"

namespace {

// Whether oneDNN multiplies tiled bfloat16 matrices on this CPU.
bool can_multiply_bf16() {
  std::vector<bf16> zeros(kTile * kTile);
  std::vector<float> product(kTile * kTile);
  try {
    at::native::cpublas::brgemm(
        kTile, kTile, kTile, kTile, kTile, kTile, false, zeros.data(), zeros.data(),
        product.data());
    at::native::cpublas::brgemm_release();
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

int64_t bf16_size(int64_t out, int64_t in) { return Layout(out, in).size(); }

// Writes weights (K', O, I) of the layers `heads` (K), or of all, to `tiled` (K, bf16_size(O, I)).
void bf16_tile_(Tensor& tiled, const Tensor& weight_, const OptionalTensor& heads_) {
  const Tensor weight = weight_.contiguous(), heads = contiguous(heads_);
  const int64_t num = heads.defined() ? heads.size(0) : weight.size(0);
  const int64_t out = weight.size(1), in = weight.size(2);
  const Layout layout(out, in);
  TORCH_CHECK(
      tiled.size(0) == num && tiled.size(1) == layout.size() && tiled.is_contiguous(),
      "bf16_tile_: tiled must be contiguous of shape (K, bf16_size(O, I))");
  const float* source = weight.const_data_ptr<float>();
  bf16* target = tiled.mutable_data_ptr<bf16>();
  const int64_t strips = layout.columns() / kStrip;
  at::parallel_for(0, num * strips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t k = s / strips, head = heads.defined() ? *data<int64_t>(heads, k) : k;
      tile_transposed(
          source + head * out * in, out, in, s % strips * kStrip, layout,
          target + k * layout.size());
    }
  });
}

// As bf16_tile_, with a new result.
Tensor bf16_tiled(const Tensor& weight, const OptionalTensor& heads) {
  const int64_t num = heads ? heads->size(0) : weight.size(0);
  const int64_t size = bf16_size(weight.size(1), weight.size(2));
  Tensor tiled = at::empty({num, size}, weight.options().dtype(at::kBFloat16));
  bf16_tile_(tiled, weight, heads);
  return tiled;
}

// Returns the product (rows, out) of x (rows, I) and tiled weights (O, I): the fastest rate at which
// layers can multiply, for benchmarks.
Tensor bf16_product(const Tensor& x, const Tensor& tiled, int64_t out) {
  const Layout layout(out, x.size(1));
  TORCH_CHECK(
      x.is_contiguous() && x.size(1) % kTile == 0 && tiled.numel() == layout.size(),
      "bf16_product: the shapes of x and weights do not match");
  Tensor y = at::empty({x.size(0), layout.columns()}, x.options().dtype(at::kFloat));
  at::parallel_for(0, x.size(0), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kRows) {
      multiply(
          std::min(kRows, end - i), data<bf16>(x, i * x.size(1)), x.size(1), x.size(1),
          data<bf16>(tiled, 0), layout, 0, false,
          y.mutable_data_ptr<float>() + i * layout.columns());
    }
    at::native::cpublas::brgemm_release();
  });
  return y.narrow(1, 0, out);
}

// Neighboring inputs of a layer with equally many rows.
struct Run {
  int64_t rows, begin, size = 0;  // columns of the concatenated inputs: the first, their number
  std::vector<Tensor> parts = {};
};

// The concatenated inputs x of a layer.
struct Joined {
  std::vector<Run> own, shared = {};  // inputs of each row, and inputs that several rows share
  int64_t rows = 0, in = 0;           // of x
  int64_t width = 0;                  // of a row of the own inputs, padded to whole tiles
  bool as_is;                         // whether the own inputs need not be rounded and joined

  explicit Joined(at::TensorList parts) {
    for (const Tensor& part : parts) {
      const int64_t size = part.size(-1), part_rows = part.numel() / size;
      if (own.empty() || own.back().rows != part_rows) own.push_back({part_rows, in});
      own.back().parts.push_back(part.contiguous());
      own.back().size += size;
      in += size;
      rows = std::max(rows, part_rows);
      TORCH_CHECK(own.back().begin % 2 == 0, "bf16: an input begins at an odd column");
    }
    const auto is_shared = [&](const Run& run) { return run.rows < rows; };
    std::copy_if(own.begin(), own.end(), std::back_inserter(shared), is_shared);
    std::erase_if(own, is_shared);
    for (const Run& run : own) width += round_up(run.size, kTile);
    as_is = own.size() == 1 && own[0].parts.size() == 1 && own[0].size == width &&
        own[0].parts[0].scalar_type() == at::kBFloat16;
  }
};

// Writes rows of the concatenated parts, rounded and padded with zeros to whole tiles, to x.
void gather(const Run& run, int64_t first, int64_t rows, bf16* x, int64_t ldx) {
  for (int64_t i = first; i < first + rows; ++i, x += ldx) {
    bf16* y = x;
    for (const Tensor& part : run.parts) {
      const int64_t size = part.size(-1);
      if (part.scalar_type() == at::kFloat) {
        round_row(part.const_data_ptr<float>() + i * size, size, y);
      } else {
        std::memcpy(y, part.const_data_ptr<bf16>() + i * size, size * sizeof(bf16));
      }
      y += size;
    }
    std::memset(y, 0, (round_up(run.size, kTile) - run.size) * sizeof(bf16));
  }
}

// Computes the products y (rows, columns) of rows of the own inputs; `scratch` has space for them.
void products_of_own(
    const Joined& x, int64_t first, int64_t rows, const bf16* matrix, const Layout& layout,
    bf16* scratch, float* y) {
  int64_t at = 0;
  for (const Run& run : x.own) {
    if (!x.as_is) gather(run, first, rows, scratch + at, x.width);
    const bf16* row =
        x.as_is ? run.parts[0].const_data_ptr<bf16>() + first * x.width : scratch + at;
    multiply(rows, row, x.width, run.size, matrix, layout, run.begin, at > 0, y);
    at += round_up(run.size, kTile);
  }
}

// Returns the products of the shared inputs plus bias: (rows of these inputs, columns).
Tensor products_of_shared(
    const Joined& x, const bf16* matrix, const Layout& layout, const Tensor& bias) {
  const int64_t rows = x.shared[0].rows;
  Tensor y = at::empty({rows, layout.columns()}, bias.options());
  float* py = y.mutable_data_ptr<float>();
  bool add = false;
  for (const Run& run : x.shared) {
    const int64_t size = round_up(run.size, kTile);
    Scratch<bf16> scratch(rows * size);
    gather(run, 0, rows, scratch.get(), size);
    multiply(rows, scratch.get(), size, size, matrix, layout, run.begin, add, py);
    add = true;
  }
  at::native::cpublas::brgemm_release();
  y.narrow(1, 0, bias.size(0)).add_(bias);
  return y;
}

// Mish for results that are rounded to bfloat16 (relative error 2e-3): v * q(v) with relative error
// 3e-4. q = n / (n + 2), see `mish`, is a cubic polynomial on each of 32 intervals. On the first and
// below it is 0, which changes results by less than 1e-5; on the last and above it is 1.
struct RoughMish {
  static constexpr float kLow = -15.f, kStep = 0.66f, kHigh = kLow + 31.5f * kStep;
  alignas(64) float table[4][32] = {};

  RoughMish() {
    table[0][31] = 1.f;
    for (int i = 1; i < 31; ++i) {
      double x[4], q[4], c[4] = {};
      for (int k = 0; k < 4; ++k) {  // Chebyshev nodes
        x[k] = kLow + kStep * (i + 0.5 + 0.5 * std::cos((2 * k + 1) * M_PI / 8));
        const double n = std::exp(x[k]) * (std::exp(x[k]) + 2);
        q[k] = n / (n + 2);
      }
      for (int k = 1; k < 4; ++k) {  // divided differences
        for (int j = 3; j >= k; --j) q[j] = (q[j] - q[j - 1]) / (x[j] - x[j - k]);
      }
      for (int k = 3; k >= 0; --k) {  // c = c (v - x[k]) + q[k]
        for (int j = 3; j > 0; --j) c[j] = c[j - 1] - c[j] * x[k];
        c[0] = q[k] - c[0] * x[k];
      }
      for (int k = 0; k < 4; ++k) table[k][i] = c[k];
    }
  }

  Vec operator()(Vec v) const {
#ifdef CPU_CAPABILITY_AVX512
    const Vec bounded = at_least(v, kLow), x = at_most(bounded, kHigh);
    const __m512i i = _mm512_cvttps_epi32((x - Vec(kLow)) * Vec(1 / kStep));
    const auto entry = [&](int k) -> Vec {
      return _mm512_permutex2var_ps(
          _mm512_load_ps(table[k]), i, _mm512_load_ps(table[k] + kLanes));
    };
    const Vec high = at::vec::fmadd(entry(3), x, entry(2));
    return bounded * at::vec::fmadd(at::vec::fmadd(high, x, entry(1)), x, entry(0));
#else
    return mish(v);
#endif
  }
};
const RoughMish rough_mish;

// What the backward pass of a layer with norm needs of a row: its products, mean and 1 / standard
// deviation. Both null if there is none.
struct Saved {
  bf16* products;
  float* stats;
};

// Computes a layer of one row from the products x, which it overwrites. A hidden layer is rounded
// to bfloat16 for the next one; SimNorm and layers without activation are float32.
void finish_row(
    float* x, const float* factor, const Layer& layer, int64_t dim, int64_t act, float tau,
    void* y, Saved saved) {
  if (act == kNone) {
    for (int64_t j = 0; j < dim; ++j) static_cast<float*>(y)[j] = x[j] + layer.bias[j];
    return;
  }
  bf16* rounded = static_cast<bf16*>(y);
  if (layer.gamma == nullptr) {
    const auto value = [&](int64_t j) {
      return activated(Vec::loadu(x + j) + Vec::loadu(layer.bias + j), act);
    };
    for (int64_t j = 0; j < dim; j += 2 * kLanes) {
      store_rounded(value(j), value(j + kLanes), rounded + j);
    }
    return;
  }
  if (saved.products != nullptr) round_row(x, dim, saved.products);
  const auto [mean, rstd] = center(x, factor, layer, dim, x);
  if (saved.stats != nullptr) saved.stats[0] = mean, saved.stats[1] = rstd;
  if (act == kSimNorm) {
    float* py = static_cast<float*>(y);
    for (int64_t j = 0; j < dim; j += kLanes) scaled(x, mean, rstd, layer, j).store(py + j);
    simnorm(py, dim, tau);
    return;
  }
  for (int64_t j = 0; j < dim; j += 2 * kLanes) {
    const Vec low = scaled(x, mean, rstd, layer, j);
    const Vec high = scaled(x, mean, rstd, layer, j + kLanes);
    if (act == kMish) {
      store_rounded(rough_mish(low), rough_mish(high), rounded + j);
    } else {
      store_rounded(activated(low, act), activated(high, act), rounded + j);
    }
  }
}

// Returns y = act(norm(factor * (x W' + bias)) gamma + beta), or act(x W' + bias) without gamma. x
// (..., I) is the concatenation of `parts`; a part (..., 1, .) is shared by the rows (..., N). With
// parameters (O) the result is (..., O). With parameters (K', O) of an ensemble, of which `heads`
// (K) selects layers, it is (K, N, O) for parts (N, .), or a part (K, N, I). If `save`, also
// returns the rounded products and the mean and 1 / standard deviation of each row (rows, 2).
std::tuple<Tensor, Tensor, Tensor> forward(
    at::TensorList parts, const Tensor& tiled, const Tensor& bias_, const OptionalTensor& gamma_,
    const OptionalTensor& beta_, const OptionalTensor& factor_, const OptionalTensor& heads_,
    int64_t act, double tau, bool save) {
  const Tensor bias = bias_.contiguous();
  const Tensor gamma = contiguous(gamma_), beta = contiguous(beta_), heads = contiguous(heads_);
  const Tensor factor = contiguous(factor_);
  const Joined x(parts);
  const bool one = bias.dim() == 1, each = !one && parts[0].dim() == 3, shared = !x.shared.empty();
  const int64_t num = heads.defined() ? heads.size(0) : tiled.size(0), out = bias.size(-1);
  const int64_t rows = each ? x.rows / num : x.rows;
  const Layout layout(out, x.in);
  TORCH_CHECK(
      tiled.size(1) == layout.size() && (one || !shared) &&
          (act == kNone || out % kTile == 0) && (!each || parts[0].size(0) == num),
      "bf16: the shapes of inputs and weights do not match");
  TORCH_CHECK(
      gamma.defined() ? act != kNone : act != kMish && act != kSimNorm && !factor.defined(),
      "bf16: a norm needs an activation, and Mish, SimNorm and dropout need a norm");
  const bf16* weights = tiled.const_data_ptr<bf16>();
  const Tensor offsets = shared ? products_of_shared(x, weights, layout, bias) : bias;
  const int64_t rows_per_offset = shared ? rows / x.shared[0].rows : rows;

  const bool hidden = act != kNone && act != kSimNorm;
  std::vector<int64_t> sizes = one ? x.own[0].parts[0].sizes().vec() : std::vector{num, rows, out};
  sizes.back() = out;
  Tensor y = at::empty(sizes, bias.options().dtype(hidden ? at::kBFloat16 : at::kFloat));
  char* py = static_cast<char*>(y.mutable_data_ptr());
  save = save && gamma.defined();
  Tensor saved = at::empty(save ? sizes : std::vector<int64_t>{0}, tiled.options());
  Tensor stats = at::empty({save ? num * rows : 0, 2}, bias.options());
  bf16* ps = saved.mutable_data_ptr<bf16>();
  float* pstats = stats.mutable_data_ptr<float>();
  const int64_t height = layout.rows_of_block();
  const int64_t blocks = (rows + height - 1) / height;
  at::parallel_for(0, num * blocks, 1, [&](int64_t begin, int64_t end) {
    Scratch<float> products(height * layout.columns());
    Scratch<bf16> scratch(x.as_is ? 0 : height * x.width);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t k = b / blocks, row = b % blocks * height;
      const int64_t head = heads.defined() ? *data<int64_t>(heads, k) : k;
      const int64_t size = std::min(height, rows - row);
      products_of_own(
          x, (each ? k * rows : 0) + row, size, weights + head * layout.size(), layout,
          scratch.get(), products.get());
      for (int64_t i = 0; i < size; ++i) {
        const int64_t offset = shared ? (row + i) / rows_per_offset : head;
        const int64_t to = k * rows + row + i;
        const Layer layer = {
            data<float>(offsets, offset * offsets.size(-1)), data<float>(gamma, head * out),
            data<float>(beta, head * out)};
        finish_row(
            products.get() + i * layout.columns(), data<float>(factor, to * out), layer, out,
            act, static_cast<float>(tau), py + to * out * y.element_size(),
            save ? Saved{ps + to * out, pstats + 2 * to} : Saved{});
      }
    }
    at::native::cpublas::brgemm_release();
  });
  return {y, saved, stats};
}

Tensor bf16_dense(
    at::TensorList parts, const Tensor& tiled, const Tensor& bias, const OptionalTensor& gamma,
    const OptionalTensor& beta, const OptionalTensor& heads, int64_t act, double tau) {
  const OptionalTensor none;
  return std::get<0>(forward(parts, tiled, bias, gamma, beta, none, heads, act, tau, false));
}

std::tuple<Tensor, Tensor, Tensor> bf16_layer(
    const Tensor& x, const OptionalTensor& tail, const Tensor& weight, const Tensor& tiled,
    const Tensor& bias, const OptionalTensor& gamma, const OptionalTensor& beta,
    const OptionalTensor& factor, const OptionalTensor& heads, int64_t act, double tau) {
  std::vector<Tensor> parts = {x};
  if (tail) parts.push_back(*tail);
  return forward(parts, tiled, bias, gamma, beta, factor, {}, act, tau, true);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tdmpc2, m) {
  m.def("can_multiply_bf16() -> bool", &can_multiply_bf16);
  m.def("bf16_size(int out_dim, int in_dim) -> int", &bf16_size);
  m.def("bf16_product(Tensor x, Tensor tiled, int out_dim) -> Tensor");
  m.def("bf16_tile_(Tensor(a!) tiled, Tensor weight, Tensor? heads) -> ()");
  m.def("bf16_tiled(Tensor weight, Tensor? heads) -> Tensor");
  m.def("bf16_tiled_columns(Tensor weight, Tensor? heads, int begin, int size) -> Tensor");
  m.def(
      "bf16_layer(Tensor x, Tensor? tail, Tensor weight, Tensor tiled, Tensor bias, "
      "Tensor? gamma, Tensor? beta, Tensor? factor, Tensor? heads, int act, float tau) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "bf16_layer_backward(Tensor grad, Tensor x, Tensor? tail, Tensor? weights_of_x, "
      "Tensor? weights_of_tail, Tensor y, Tensor products, Tensor stats, Tensor bias, "
      "Tensor? gamma, Tensor? beta, Tensor? factor, int act, float tau, bool needs_weight) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "bf16_dense(Tensor[] parts, Tensor tiled, Tensor bias, Tensor? gamma, Tensor? beta, "
      "Tensor? heads, int act, float tau) -> Tensor");
}

TORCH_LIBRARY_IMPL(tdmpc2, CPU, m) {
  m.impl("bf16_tile_", &bf16_tile_);
  m.impl("bf16_product", &bf16_product);
  m.impl("bf16_dense", &bf16_dense);
  m.impl("bf16_tiled", &bf16_tiled);
  m.impl("bf16_tiled_columns", &bf16_tiled_columns);
  m.impl("bf16_layer", &bf16_layer);
  m.impl("bf16_layer_backward", &bf16_layer_backward);
}
