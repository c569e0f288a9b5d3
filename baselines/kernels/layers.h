// Element-wise code between the matrix multiplications of an MLP, and its gradients: bias and
// activation, or bias, LayerNorm and tanh.

#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <optional>
#include <vector>

#include "rows.h"

namespace {

using at::Tensor;

// Parameters of the LayerNorm that with a tanh replaces the first activation; null without.
struct Norm {
  const float *scale = nullptr, *shift = nullptr;
  float eps = 0.f;
};

Norm norm_of(const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps) {
  if (!scale.has_value()) return {};
  TORCH_CHECK(
      scale->is_contiguous() && shift->is_contiguous(), "scale and shift must be contiguous");
  return {scale->const_data_ptr<float>(), shift->const_data_ptr<float>(), static_cast<float>(eps)};
}

// Results of the forward pass that the backward pass needs: the value of each hidden layer, and
// input and statistics of the LayerNorm.
struct Kept {
  std::vector<float*> hidden;
  float *raw = nullptr, *stats = nullptr;
};

// Computes tanh(LayerNorm(row + bias)) in place; `at` is the index of the row in `kept`.
void norm_tanh_row(
    float* row, const float* bias, const Norm& norm, int64_t dim, const Kept& kept, int64_t at) {
  Vec total(0.f), squares(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec v = Vec::loadu(row + j) + Vec::loadu(bias + j);
    v.store(row + j);
    if (kept.raw != nullptr) v.store(kept.raw + at * dim + j);
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
  if (kept.stats != nullptr) {
    kept.stats[2 * at] = mean;
    kept.stats[2 * at + 1] = rstd;
  }
}

// Applies `norm_tanh_row` to several rows; `at` is the index of the first.
void norm_tanh(
    float* products, int64_t rows, const float* bias, const Norm& norm, int64_t dim,
    const Kept& kept, int64_t at) {
  for (int64_t i = 0; i < rows; ++i) {
    norm_tanh_row(products + i * dim, bias, norm, dim, kept, at + i);
  }
}

// Adds the bias and, except in the last layer, applies the activation, in place.
void finish(
    float* products, int64_t rows, int64_t columns, int64_t ld, const float* bias, bool last,
    int64_t act) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = products + i * ld;
    if (last) {
      for (int64_t j = 0; j < columns; ++j) row[j] += bias[j];
      continue;
    }
    for (int64_t j = 0; j < columns; j += kLanes) {
      activated(Vec::loadu(row + j) + Vec::loadu(bias + j), act).store(row + j);
    }
  }
}

// Replaces the gradient of the output of LayerNorm and tanh by that of their input, for one row.
void norm_tanh_backward_row(
    float* grad, const float* y, const float* raw, const float* stats, const Norm& norm,
    int64_t dim, float* dbias, float* dscale, float* dshift) {
  const Vec mean(stats[0]), rstd(stats[1]);
  Vec sum(0.f), product(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec t = Vec::loadu(y + j), n = (Vec::loadu(raw + j) - mean) * rstd;
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
    const Vec n = (Vec::loadu(raw + j) - mean) * rstd;
    const Vec d = (Vec::loadu(grad + j) - level - n * tilt) * rstd;
    d.store(grad + j);
    (Vec::loadu(dbias + j) + d).store(dbias + j);
  }
}

// Applies `norm_tanh_backward_row` to several rows.
void norm_tanh_backward(
    float* grad, const float* y, const float* raw, const float* stats, int64_t rows,
    const Norm& norm, int64_t dim, float* dbias, float* dscale, float* dshift) {
  for (int64_t i = 0; i < rows; ++i) {
    norm_tanh_backward_row(
        grad + i * dim, y + i * dim, raw + i * dim, stats + 2 * i, norm, dim, dbias, dscale,
        dshift);
  }
}

// Replaces the gradient of an activation's output `y` by that of its input.
void finish_backward(
    float* grad, const float* y, int64_t rows, int64_t columns, int64_t ld, int64_t act,
    float* dbias) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      const Vec d = Vec::loadu(grad + i * ld + j) * slope(Vec::loadu(y + i * ld + j), act);
      d.store(grad + i * ld + j);
      (Vec::loadu(dbias + j) + d).store(dbias + j);
    }
  }
}

}  // namespace
