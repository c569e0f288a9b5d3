// What limits the baselines on a CPU beside their products: whole MLPs, a block of rows after the
// other, and LayerNorm with SiLU in one pass over each row.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include "products.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using at::Tensor;
using Vec = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Vec::size();
constexpr int64_t kRowsPerTask = 16;
enum Activation { kNone = 0, kRelu = 1, kElu = 2 };

float sum_of(Vec v) {
  float lanes[kLanes], total = 0.f;
  v.store(lanes);
  for (int64_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

inline Vec activated(Vec v, int64_t act) {
  const Vec zero(0.f);
  if (act == kRelu) return at::vec::maximum(v, zero);
  if (act == kElu) {
    const Vec low = at::vec::minimum(v, zero).exp_u20() - Vec(1.f);
    return Vec::blendv(low, v, v > zero);
  }
  return v;
}

// Derivative, from the activation's own value.
inline Vec slope(Vec y, int64_t act) {
  const Vec zero(0.f), one(1.f);
  if (act == kRelu) return Vec::blendv(zero, one, y > zero);
  if (act == kElu) return Vec::blendv(y + one, one, y > zero);
  return one;
}

// Rows to take at a time: the largest equal share of which a block lies in the second-level
// cache; all of them if none suits.
int64_t block_of(int64_t rows, int64_t widest) {
  const int64_t most = std::min(std::clamp<int64_t>(262144 / widest, 64, 512), rows);
  for (int64_t size = most; size >= most / 4 && size > 0; --size) {
    if (rows % size == 0) return size;
  }
  return rows;
}

// Room that a thread keeps between calls, aligned to cache lines.
float* scratch(size_t size, int which) {
  thread_local std::vector<float> memory[2];
  std::vector<float>& room = memory[which];
  if (room.size() < size + 16) room.resize(size + 16);
  const auto at = reinterpret_cast<uintptr_t>(room.data());
  return room.data() + (64 - at % 64) % 64 / 4;
}

// Matrices (O, I) laid out for products with blocks of rows: their transposes, or as they are.
std::vector<const float*> pack_all(
    const std::vector<Tensor>& weights, bool transposed, int64_t block) {
  std::vector<size_t> sizes;
  size_t total = 0;
  for (const Tensor& w : weights) {
    TORCH_CHECK(w.is_contiguous() && w.scalar_type() == at::kFloat, "weights");
    const int64_t out = transposed ? w.size(0) : w.size(1), in = transposed ? w.size(1) : w.size(0);
    sizes.push_back((products::packed_size(block, out, in) + 15) / 16 * 16);
    total += sizes.back();
  }
  float* room = scratch(total, 0);
  std::vector<const float*> packed;
  for (size_t l = 0; l < weights.size(); ++l) {
    const Tensor& w = weights[l];
    const int64_t out = transposed ? w.size(0) : w.size(1), in = transposed ? w.size(1) : w.size(0);
    products::pack(transposed, block, out, in, w.const_data_ptr<float>(), room);
    packed.push_back(room);
    room += sizes[l];
  }
  return packed;
}

// LayerNorm and tanh in the place of the first activation.
struct Norm {
  const float *scale = nullptr, *shift = nullptr;
  float eps = 0.f;
};

Norm norm_of(const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps) {
  if (!scale.has_value()) return {};
  TORCH_CHECK(scale->is_contiguous() && shift->is_contiguous(), "norm");
  return {scale->const_data_ptr<float>(), shift->const_data_ptr<float>(), static_cast<float>(eps)};
}

// Normalises a row of products with bias, and puts a tanh on it; mean and 1 / standard deviation.
std::pair<float, float> norm_tanh_row(
    float* row, const float* bias, const Norm& norm, int64_t dim, float* raw) {
  Vec total(0.f), squares(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec v = Vec::loadu(row + j) + Vec::loadu(bias + j);
    v.store(row + j);
    if (raw != nullptr) v.store(raw + j);
    total = total + v;
  }
  const float mean = sum_of(total) / dim;
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec v = Vec::loadu(row + j) - Vec(mean);
    squares = at::vec::fmadd(v, v, squares);
  }
  const float rstd = 1.f / std::sqrt(sum_of(squares) / dim + norm.eps);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec n = (Vec::loadu(row + j) - Vec(mean)) * Vec(rstd);
    const Vec u = at::vec::fmadd(n, Vec::loadu(norm.scale + j), Vec::loadu(norm.shift + j));
    u.tanh().store(row + j);
  }
  return {mean, rstd};
}

// What the backward pass needs of the forward one: each hidden layer's value, and of a norm its
// input and statistics.
struct Kept {
  std::vector<float*> hidden;
  float *raw = nullptr, *stats = nullptr;
};

// A whole MLP for x (N, I), a block of rows at a time, so that what lies between its layers stays in
// the second-level cache.
Tensor evaluate(
    const Tensor& x, const std::vector<const float*>& packed, const std::vector<Tensor>& biases,
    int64_t act, const Norm& norm, int64_t block, const Kept& kept) {
  const int64_t rows = x.size(0), layers = packed.size();
  TORCH_CHECK(rows % block == 0 && layers >= 2 && x.is_contiguous(), "rows in whole blocks");
  int64_t widest = 0;
  for (int64_t l = 0; l < layers; ++l) {
    TORCH_CHECK(biases[l].is_contiguous(), "biases");
    if (l + 1 == layers) break;
    TORCH_CHECK(biases[l].size(0) % kLanes == 0, "hidden widths");
    widest = std::max(widest, biases[l].size(0));
  }
  Tensor y = at::empty({rows, biases.back().size(0)}, x.options());
  at::parallel_for(0, rows / block, 1, [&](int64_t begin, int64_t end) {
    float* room = scratch(2 * block * widest, 1);
    for (int64_t b = begin; b < end; ++b) {
      int64_t in = x.size(1);
      const float* input = x.const_data_ptr<float>() + b * block * in;
      for (int64_t l = 0; l < layers; ++l) {
        const int64_t out = biases[l].size(0);
        const bool last = l + 1 == layers;
        float* output = last ? y.mutable_data_ptr<float>() + b * block * out
            : kept.hidden.empty() ? room + (l % 2) * block * widest
                                  : kept.hidden[l] + b * block * out;
        products::multiply(block, out, in, input, packed[l], output);
        const float* bias = biases[l].const_data_ptr<float>();
        for (int64_t i = 0; i < block; ++i) {
          float* row = output + i * out;
          const int64_t at = b * block + i;
          if (last) {
            for (int64_t j = 0; j < out; ++j) row[j] += bias[j];
          } else if (l == 0 && norm.scale != nullptr) {
            float* raw = kept.raw == nullptr ? nullptr : kept.raw + at * out;
            const auto [mean, rstd] = norm_tanh_row(row, bias, norm, out, raw);
            if (raw != nullptr) {
              kept.stats[2 * at] = mean;
              kept.stats[2 * at + 1] = rstd;
            }
          } else {
            for (int64_t j = 0; j < out; j += kLanes) {
              activated(Vec::loadu(row + j) + Vec::loadu(bias + j), act).store(row + j);
            }
          }
        }
        input = output;
        in = out;
      }
    }
  });
  return y;
}

// Without gradients, with weights that were packed before (`tdmpc2::pack_`) for such blocks.
Tensor mlp(
    const Tensor& x, const std::vector<Tensor>& packed, const std::vector<Tensor>& biases,
    int64_t act, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
    int64_t block) {
  std::vector<const float*> matrices;
  for (const Tensor& p : packed) matrices.push_back(p.const_data_ptr<float>());
  return evaluate(x.contiguous(), matrices, biases, act, norm_of(scale, shift, eps), block, {});
}

int64_t widest_of(const std::vector<Tensor>& weights) {
  int64_t widest = 0;
  for (size_t l = 0; l + 1 < weights.size(); ++l) widest = std::max(widest, weights[l].size(0));
  return widest;
}

// y; and with `keep` the hidden layers, and with a norm its input and statistics.
std::vector<Tensor> mlp_forward(
    const Tensor& x_, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
    int64_t act, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
    bool keep) {
  const Tensor x = x_.contiguous();
  const int64_t rows = x.size(0), block = block_of(rows, widest_of(weights));
  const Norm norm = norm_of(scale, shift, eps);
  std::vector<Tensor> results = {Tensor()};
  Kept kept;
  if (keep) {
    for (size_t l = 0; l + 1 < weights.size(); ++l) {
      results.push_back(at::empty({rows, weights[l].size(0)}, x.options()));
      kept.hidden.push_back(results.back().mutable_data_ptr<float>());
    }
    if (norm.scale != nullptr) {
      results.push_back(at::empty({rows, weights[0].size(0)}, x.options()));
      kept.raw = results.back().mutable_data_ptr<float>();
      results.push_back(at::empty({rows, 2}, x.options()));
      kept.stats = results.back().mutable_data_ptr<float>();
    }
  }
  const auto packed = pack_all(weights, true, block);
  results[0] = evaluate(x, packed, biases, act, norm, block, kept);
  return results;
}

// Gradient of a row's products before LayerNorm and tanh, in place of that after them.
void norm_tanh_backward_row(
    float* grad, const float* y, const float* raw, float mean, float rstd, const Norm& norm,
    int64_t dim, float* dscale, float* dshift) {
  Vec sum(0.f), product(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec t = Vec::loadu(y + j), n = (Vec::loadu(raw + j) - Vec(mean)) * Vec(rstd);
    const Vec d = Vec::loadu(grad + j) * (Vec(1.f) - t * t);
    at::vec::fmadd(d, n, Vec::loadu(dscale + j)).store(dscale + j);
    (Vec::loadu(dshift + j) + d).store(dshift + j);
    const Vec w = d * Vec::loadu(norm.scale + j);
    sum = sum + w;
    product = at::vec::fmadd(w, n, product);
    w.store(grad + j);
  }
  const Vec level(sum_of(sum) / dim), tilt(sum_of(product) / dim);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec n = (Vec::loadu(raw + j) - Vec(mean)) * Vec(rstd);
    ((Vec::loadu(grad + j) - level - n * tilt) * Vec(rstd)).store(grad + j);
  }
}

// Gradients of x (empty unless `to_x`), of each hidden layer's products, of each hidden bias, and of
// the norm's scale and shift (empty without one). `kept` is what the forward pass returned beside y.
std::vector<Tensor> mlp_backward(
    const Tensor& grad_, const std::vector<Tensor>& weights, const std::vector<Tensor>& kept,
    int64_t act, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
    bool to_x) {
  const Tensor grad = grad_.contiguous();
  const int64_t rows = grad.size(0), layers = weights.size(), hidden = layers - 1;
  const int64_t block = block_of(rows, widest_of(weights));
  const Norm norm = norm_of(scale, shift, 0.);
  std::vector<Tensor> results = {
      to_x ? at::empty({rows, weights[0].size(1)}, grad.options()) : Tensor(at::empty({0}, grad.options()))};
  int64_t total = 0;
  for (int64_t l = 0; l < hidden; ++l) {
    results.push_back(at::empty({rows, weights[l].size(0)}, grad.options()));
    total += weights[l].size(0);
  }
  const int64_t first = weights[0].size(0), width = total + 2 * first;
  const auto packed = pack_all(weights, false, block);
  const int64_t blocks = rows / block, threads = at::get_num_threads();
  const int64_t share = (blocks + threads - 1) / threads;
  // Each thread sums the gradients of biases for itself, so that they add up in a fixed order.
  Tensor sums = at::zeros({threads, width}, grad.options());
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* sum = sums.mutable_data_ptr<float>() + t * width;
      for (int64_t b = t * share; b < std::min(blocks, (t + 1) * share); ++b) {
        const float* after = grad.const_data_ptr<float>() + b * block * grad.size(1);
        int64_t place = total;
        for (int64_t l = hidden; l >= 0; --l) {
          const int64_t out = weights[l].size(0), in = weights[l].size(1);
          if (l == 0 && !to_x) break;
          Tensor& target = results[l];
          float* before = target.mutable_data_ptr<float>() + b * block * in;
          products::multiply(block, in, out, after, packed[l], before);
          after = before;
          if (l == 0) break;
          place -= in;
          const float* y = kept[l - 1].const_data_ptr<float>() + b * block * in;
          for (int64_t i = 0; i < block; ++i) {
            float* row = before + i * in;
            if (l == 1 && norm.scale != nullptr) {
              const int64_t at = b * block + i;
              const float* stats = kept[hidden + 1].const_data_ptr<float>() + 2 * at;
              norm_tanh_backward_row(
                  row, y + i * in, kept[hidden].const_data_ptr<float>() + at * in, stats[0],
                  stats[1], norm, in, sum + total, sum + total + first);
              for (int64_t j = 0; j < in; j += kLanes) {
                (Vec::loadu(sum + place + j) + Vec::loadu(row + j)).store(sum + place + j);
              }
              continue;
            }
            for (int64_t j = 0; j < in; j += kLanes) {
              const Vec g = Vec::loadu(row + j) * slope(Vec::loadu(y + i * in + j), act);
              g.store(row + j);
              (Vec::loadu(sum + place + j) + g).store(sum + place + j);
            }
          }
        }
      }
    }
  });
  const Tensor all = threads == 1 ? sums[0] : sums.sum(0);
  int64_t place = 0;
  for (int64_t l = 0; l < hidden; ++l) {
    results.push_back(all.narrow(0, place, weights[l].size(0)));
    place += weights[l].size(0);
  }
  if (norm.scale != nullptr) {
    results.push_back(all.narrow(0, total, first));
    results.push_back(all.narrow(0, total + first, first));
  }
  return results;
}

// SiLU(LayerNorm(x) scale + shift) for x (N, D); `stats` are mean and 1 / standard deviation.
std::tuple<Tensor, Tensor> norm_silu(
    const Tensor& x_, const Tensor& scale_, const Tensor& shift_, double eps) {
  const Tensor x = x_.contiguous(), scale = scale_.contiguous(), shift = shift_.contiguous();
  const int64_t rows = x.size(0), dim = x.size(1);
  TORCH_CHECK(dim % kLanes == 0 && scale.size(0) == dim && shift.size(0) == dim, "shapes");
  Tensor y = at::empty_like(x), stats = at::empty({rows, 2}, x.options());
  const float *px = x.const_data_ptr<float>(), *pc = scale.const_data_ptr<float>();
  const float* ph = shift.const_data_ptr<float>();
  float *py = y.mutable_data_ptr<float>(), *ps = stats.mutable_data_ptr<float>();
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = px + i * dim;
      Vec total(0.f), squares(0.f);
      for (int64_t j = 0; j < dim; j += kLanes) total = total + Vec::loadu(row + j);
      const float mean = sum_of(total) / dim;
      for (int64_t j = 0; j < dim; j += kLanes) {
        const Vec v = Vec::loadu(row + j) - Vec(mean);
        squares = at::vec::fmadd(v, v, squares);
      }
      const float rstd = 1.f / std::sqrt(sum_of(squares) / dim + static_cast<float>(eps));
      for (int64_t j = 0; j < dim; j += kLanes) {
        const Vec n = (Vec::loadu(row + j) - Vec(mean)) * Vec(rstd);
        const Vec u = at::vec::fmadd(n, Vec::loadu(pc + j), Vec::loadu(ph + j));
        (u / (Vec(1.f) + u.neg().exp_u20())).store(py + i * dim + j);
      }
      ps[2 * i] = mean;
      ps[2 * i + 1] = rstd;
    }
  });
  return {y, stats};
}

// Gradients of x, scale and shift.
std::tuple<Tensor, Tensor, Tensor> norm_silu_backward(
    const Tensor& grad_, const Tensor& x_, const Tensor& stats, const Tensor& scale_,
    const Tensor& shift_) {
  const Tensor grad = grad_.contiguous(), x = x_.contiguous();
  const Tensor scale = scale_.contiguous(), shift = shift_.contiguous();
  const int64_t rows = x.size(0), dim = x.size(1);
  Tensor dx = at::empty_like(x);
  const int64_t threads = at::get_num_threads(), share = (rows + threads - 1) / threads;
  Tensor sums = at::zeros({threads, 2, dim}, x.options());
  const float *px = x.const_data_ptr<float>(), *pg = grad.const_data_ptr<float>();
  const float *pc = scale.const_data_ptr<float>(), *ph = shift.const_data_ptr<float>();
  const float* ps = stats.const_data_ptr<float>();
  float *pd = dx.mutable_data_ptr<float>(), *psums = sums.mutable_data_ptr<float>();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    std::vector<float> buffer(2 * dim);
    float *normed = buffer.data(), *weighted = normed + dim;
    for (int64_t t = first; t < last; ++t) {
      float *dscale = psums + 2 * t * dim, *dshift = dscale + dim;
      for (int64_t i = t * share; i < std::min(rows, (t + 1) * share); ++i) {
        const Vec mean(ps[2 * i]), rstd(ps[2 * i + 1]), one(1.f);
        Vec sum(0.f), product(0.f);
        for (int64_t j = 0; j < dim; j += kLanes) {
          const Vec n = (Vec::loadu(px + i * dim + j) - mean) * rstd;
          const Vec u = at::vec::fmadd(n, Vec::loadu(pc + j), Vec::loadu(ph + j));
          const Vec s = one / (one + u.neg().exp_u20());
          const Vec d = Vec::loadu(pg + i * dim + j) * s * at::vec::fmadd(u, one - s, one);
          at::vec::fmadd(d, n, Vec::loadu(dscale + j)).store(dscale + j);
          (Vec::loadu(dshift + j) + d).store(dshift + j);
          const Vec w = d * Vec::loadu(pc + j);
          sum = sum + w;
          product = at::vec::fmadd(w, n, product);
          n.store(normed + j);
          w.store(weighted + j);
        }
        const Vec level(sum_of(sum) / dim), slope(sum_of(product) / dim);
        for (int64_t j = 0; j < dim; j += kLanes) {
          const Vec n = Vec::loadu(normed + j);
          ((Vec::loadu(weighted + j) - level - n * slope) * rstd).store(pd + i * dim + j);
        }
      }
    }
  });
  const Tensor total = threads == 1 ? sums[0] : sums.sum(0);
  return {dx, total[0], total[1]};
}

}  // namespace

TORCH_LIBRARY(baselines, m) {
  m.def("can_multiply() -> bool", &products::possible);
  m.def(
      "mlp(Tensor x, Tensor[] packed, Tensor[] biases, int act, Tensor? scale, Tensor? shift, "
      "float eps, int block) -> Tensor",
      &mlp);
  m.def(
      "mlp_forward(Tensor x, Tensor[] weights, Tensor[] biases, int act, Tensor? scale, "
      "Tensor? shift, float eps, bool keep) -> Tensor[]",
      &mlp_forward);
  m.def(
      "mlp_backward(Tensor grad, Tensor[] weights, Tensor[] kept, int act, Tensor? scale, "
      "Tensor? shift, bool to_x) -> Tensor[]",
      &mlp_backward);
  m.def(
      "norm_silu(Tensor x, Tensor scale, Tensor shift, float eps) -> (Tensor, Tensor)", &norm_silu);
  m.def(
      "norm_silu_backward(Tensor grad, Tensor x, Tensor stats, Tensor scale, Tensor shift) -> "
      "(Tensor, Tensor, Tensor)",
      &norm_silu_backward);
}
