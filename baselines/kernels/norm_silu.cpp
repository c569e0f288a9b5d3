// LayerNorm and SiLU of DreamerV3's hidden layers in one pass over each row.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "vectors.h"

namespace {

using at::Tensor;
constexpr int64_t kRowsPerTask = 16;

// Returns SiLU(norm(x) * scale + shift) for x (N, D), and `stats`: mean and 1 / standard deviation
// of each row.
std::tuple<Tensor, Tensor> norm_silu(
    const Tensor& x_, const Tensor& scale_, const Tensor& shift_, double eps) {
  const Tensor x = x_.contiguous(), scale = scale_.contiguous(), shift = shift_.contiguous();
  const int64_t rows = x.size(0), dim = x.size(1);
  TORCH_CHECK(
      dim % kLanes == 0 && scale.size(0) == dim && shift.size(0) == dim,
      "norm_silu: scale and shift must have D = ", dim, " entries, a multiple of ", kLanes);
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
        (u / (Vec(1.f) + fast_exp(u.neg()))).store(py + i * dim + j);
      }
      ps[2 * i] = mean;
      ps[2 * i + 1] = rstd;
    }
  });
  return {y, stats};
}

// Returns the gradients of x, scale and shift.
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
          const Vec s = one / (one + fast_exp(u.neg()));
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

TORCH_LIBRARY_FRAGMENT(baselines, m) {
  m.def(
      "norm_silu(Tensor x, Tensor scale, Tensor shift, float eps) -> (Tensor, Tensor)", &norm_silu);
  m.def(
      "norm_silu_backward(Tensor grad, Tensor x, Tensor stats, Tensor scale, Tensor shift) -> "
      "(Tensor, Tensor, Tensor)",
      &norm_silu_backward);
}
