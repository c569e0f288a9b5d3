// LayerNorm and activation of a layer in one pass over each row, while the row is in the L1 cache.
//
// y = act(norm(factor * (x + bias)) * gamma + beta) for x (K, N, D) and parameters (K, D) of an
// ensemble of K layers, or for x (..., D) and parameters (D) of a single layer. `act` is Mish
// (group 0) or SimNorm over groups of 8 (group 8). `factor` holds dropout factors, or is empty.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "products.h"
#include "rows.h"

namespace {

using at::Tensor;
constexpr int64_t kRowsPerTask = 16;

struct Shape {
  int64_t num, rows, dim;
};

int64_t act_of(int64_t group) { return group == 0 ? kMish : kSimNorm; }

Shape check(const Tensor& x, const Tensor& bias, int64_t group) {
  const int64_t num = bias.dim() == 1 ? 1 : bias.size(0), dim = bias.size(-1);
  TORCH_CHECK(
      x.scalar_type() == at::kFloat && x.size(-1) == dim,
      "norm_act: x must be float32 of shape (..., D) with D = ", dim, " as in bias");
  TORCH_CHECK(
      bias.dim() == 1 || (x.dim() == 3 && x.size(0) == num),
      "norm_act: with parameters (K, D), x must have the shape (K, N, D)");
  TORCH_CHECK(
      dim % 16 == 0 && (group == 0 || group == kGroup), "norm_act: D = ", dim,
      " must be a multiple of 16, and group = ", group, " must be 0 (Mish) or 8 (SimNorm)");
  return {num, x.numel() / (num * dim), dim};
}

// Writes the result to `y`, which may be `x`, and mean and 1 / standard deviation of each row to
// `stats` unless it is null.
void forward(
    const Tensor& x, const Tensor& bias_, const Tensor& gamma_, const Tensor& beta_,
    const std::optional<Tensor>& factor_, int64_t group, double tau, Tensor& y, float* stats) {
  const Shape s = check(x, bias_, group);
  const Tensor bias = bias_.contiguous(), gamma = gamma_.contiguous(), beta = beta_.contiguous();
  const Tensor factor = factor_.has_value() ? factor_->contiguous() : Tensor();
  const float* px = x.const_data_ptr<float>();
  const float* pf = factor.defined() ? factor.const_data_ptr<float>() : nullptr;
  float* py = y.mutable_data_ptr<float>();
  at::parallel_for(0, s.num * s.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Layer layer = layer_of(bias, gamma, beta, i / s.rows);
      const int64_t at = i * s.dim;
      const auto [mean, rstd] = norm_act_row(
          px + at, pf ? pf + at : nullptr, layer, s.dim, act_of(group),
          static_cast<float>(tau), py + at);
      if (stats != nullptr) {
        stats[2 * i] = mean;
        stats[2 * i + 1] = rstd;
      }
    }
  });
}

std::tuple<Tensor, Tensor> norm_act(
    const Tensor& x_, const Tensor& bias, const Tensor& gamma, const Tensor& beta,
    const std::optional<Tensor>& factor, int64_t group, double tau) {
  const Tensor x = x_.contiguous();
  Tensor y = at::empty_like(x), stats = at::empty({x.numel() / x.size(-1), 2}, x.options());
  forward(x, bias, gamma, beta, factor, group, tau, y, stats.mutable_data_ptr<float>());
  return {y, stats};
}

// --- whole layers without gradients -------------------------------------------------
//
// Multiplies one block of rows at a time by blocked weights, so that the block is still in the
// second-level cache when norm and activation are applied.

int64_t blocked_size(int64_t out, int64_t in, int64_t block) {
  return products::blocked_size(block, out, in);
}

// Writes weights (K, O, I) to `blocked` (K, size) in the layout for blocks of `block` rows.
void block_(Tensor& blocked, const Tensor& weight_, int64_t block) {
  const Tensor weight = weight_.contiguous();
  const int num = weight.size(0), out = weight.size(1), in = weight.size(2);
  TORCH_CHECK(
      blocked.size(1) == blocked_size(out, in, block) && blocked.is_contiguous(),
      "block_: blocked must be contiguous of shape (K, blocked_size(O, I, block))");
  for (int k = 0; k < num; ++k) {
    products::block_weights(
        true, block, out, in, weight.const_data_ptr<float>() + int64_t(k) * out * in,
        blocked.mutable_data_ptr<float>() + k * blocked.size(1));
  }
}

// Returns act(norm(x W' + bias) gamma + beta). For an ensemble with parameters (K', O): (K, N, O)
// from x (N, I) or (K, N, I), where `heads` (K) selects layers. For a single layer with parameters
// (O): (..., O) from x (..., I).
Tensor dense(
    const Tensor& x_, const Tensor& blocked, const Tensor& bias_, const Tensor& gamma_,
    const Tensor& beta_, const std::optional<Tensor>& heads_, int64_t block, int64_t group,
    double tau) {
  const Tensor x = x_.contiguous(), bias = bias_.contiguous(), gamma = gamma_.contiguous();
  const Tensor beta = beta_.contiguous();
  const Tensor heads = heads_.has_value() ? heads_->contiguous() : Tensor();
  const int64_t num = heads.defined() ? heads.size(0) : blocked.size(0);
  const int64_t in = x.size(-1), out = bias.size(-1);
  const bool one = bias.dim() == 1, shared = one || x.dim() == 2;
  const int64_t rows = x.numel() / (in * (shared ? 1 : num));
  TORCH_CHECK(
      rows % block == 0 && (shared || x.size(0) == num), "dense: the number of rows (", rows,
      ") must be a multiple of block = ", block, ", and x (K, N, I) must have K = ", num);
  std::vector<int64_t> sizes = {num, rows, out};
  if (one) {
    sizes = x.sizes().vec();
    sizes.back() = out;
  }
  Tensor y = at::empty(sizes, x.options());
  const int64_t* ph = heads.defined() ? heads.const_data_ptr<int64_t>() : nullptr;
  const float *px = x.const_data_ptr<float>(), *pw = blocked.const_data_ptr<float>();
  float* py = y.mutable_data_ptr<float>();
  const int64_t blocks = rows / block;
  at::parallel_for(0, num * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t k = b / blocks, row = (b % blocks) * block;
      const int64_t head = ph != nullptr ? ph[k] : k;
      const float* input = px + ((shared ? 0 : k * rows) + row) * in;
      float* output = py + (k * rows + row) * out;
      products::multiply(block, out, in, input, pw + head * blocked.size(1), output);
      const Layer layer = layer_of(bias, gamma, beta, head);
      for (int64_t i = 0; i < block; ++i) {
        float* each = output + i * out;
        norm_act_row(each, nullptr, layer, out, act_of(group), static_cast<float>(tau), each);
      }
    }
  });
  return y;
}

// In place, for use without gradients: saves a third of the memory traffic.
void norm_act_(
    Tensor& x, const Tensor& bias, const Tensor& gamma, const Tensor& beta,
    const std::optional<Tensor>& factor, int64_t group, double tau) {
  TORCH_CHECK(x.is_contiguous(), "norm_act_: x must be contiguous");
  forward(x, bias, gamma, beta, factor, group, tau, x, nullptr);
}

// Returns the gradients of x, bias, gamma and beta. `grad` is the gradient of y; `y` and `stats`
// are the results of the forward pass.
std::tuple<Tensor, Tensor, Tensor, Tensor> norm_act_backward(
    const Tensor& grad_, const Tensor& x_, const Tensor& y_, const Tensor& stats_,
    const Tensor& bias_, const Tensor& gamma_, const Tensor& beta_,
    const std::optional<Tensor>& factor_, int64_t group, double tau) {
  const Shape s = check(x_, bias_, group);
  const Tensor x = x_.contiguous(), grad = grad_.contiguous(), y = y_.contiguous();
  const Tensor stats = stats_.contiguous(), bias = bias_.contiguous(), gamma = gamma_.contiguous();
  const Tensor beta = beta_.contiguous();
  const Tensor factor = factor_.has_value() ? factor_->contiguous() : Tensor();
  const float *px = x.const_data_ptr<float>(), *pg = grad.const_data_ptr<float>();
  const float *py = y.const_data_ptr<float>(), *ps = stats.const_data_ptr<float>();
  const float* pf = factor.defined() ? factor.const_data_ptr<float>() : nullptr;
  Tensor dx = at::empty_like(x);
  float* pdx = dx.mutable_data_ptr<float>();
  // Each thread sums the parameter gradients of its own range of rows, so that the order of
  // summation is fixed.
  const int64_t threads = at::get_num_threads();
  const int64_t share = (s.rows + threads - 1) / threads;
  Tensor sums = at::zeros({threads, 3, s.num, s.dim}, x.options());
  float* psums = sums.mutable_data_ptr<float>();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    std::vector<float> buffer(2 * s.dim);
    for (int64_t t = first; t < last; ++t) {
      for (int64_t k = 0; k < s.num; ++k) {
        const Layer layer = layer_of(bias, gamma, beta, k);
        float* dbias = psums + ((t * 3) * s.num + k) * s.dim;
        const LayerGradient total = {dbias, dbias + s.num * s.dim, dbias + 2 * s.num * s.dim};
        const int64_t stop = std::min(s.rows, (t + 1) * share);
        for (int64_t i = k * s.rows + t * share; i < k * s.rows + stop; ++i) {
          const int64_t at = i * s.dim;
          norm_act_backward_row(
              pg + at, px + at, py + at, pf != nullptr ? pf + at : nullptr, ps[2 * i],
              ps[2 * i + 1], layer, s.dim, act_of(group), static_cast<float>(tau), buffer.data(),
              pdx + at, total);
        }
      }
    }
  });
  const Tensor total = threads == 1 ? sums[0] : sums.sum(0);
  return {dx, total[0].view_as(bias), total[1].view_as(bias), total[2].view_as(bias)};
}

}  // namespace

TORCH_LIBRARY(tdmpc2, m) {
  m.def(
      "norm_act(Tensor x, Tensor bias, Tensor gamma, Tensor beta, Tensor? factor, int group, "
      "float tau) -> (Tensor, Tensor)");
  m.def(
      "norm_act_(Tensor(a!) x, Tensor bias, Tensor gamma, Tensor beta, Tensor? factor, int group, "
      "float tau) -> ()");
  m.def("can_multiply() -> bool", &products::possible);
  m.def("blocked_size(int out_dim, int in_dim, int block) -> int", &blocked_size);
  m.def("block_(Tensor(a!) blocked, Tensor weight, int block) -> ()");
  m.def(
      "dense(Tensor x, Tensor blocked, Tensor bias, Tensor gamma, Tensor beta, Tensor? heads, "
      "int block, int group, float tau) -> Tensor");
  m.def(
      "norm_act_backward(Tensor grad, Tensor x, Tensor y, Tensor stats, Tensor bias, "
      "Tensor gamma, Tensor beta, Tensor? factor, int group, float tau) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(tdmpc2, CPU, m) {
  m.impl("norm_act", &norm_act);
  m.impl("norm_act_", &norm_act_);
  m.impl("block_", &block_);
  m.impl("dense", &dense);
  m.impl("norm_act_backward", &norm_act_backward);
}
