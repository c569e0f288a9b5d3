// Bias, LayerNorm and activation of one row, which the kernels share.

#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "vectors.h"

namespace {

constexpr int64_t kGroup = 8;
constexpr float kEps = 1e-5f;
typedef float Group __attribute__((vector_size(kGroup * sizeof(float)), aligned(4)));
typedef int Order __attribute__((vector_size(kGroup * sizeof(int))));

#ifdef CPU_CAPABILITY_AVX512
// 1 / v from the CPU's estimate and one Newton step: relative error 2e-7, in a third of the time of
// a division.
inline Vec inverse(Vec v) {
  const Vec r = _mm512_rcp14_ps(v);
  return r * at::vec::fnmadd(v, r, Vec(2.f));
}
#else
inline Vec inverse(Vec v) { return Vec(1.f) / v; }
#endif

// Sum and maximum over a group, in every lane.
inline Group group_sum(Group v) {
  v += __builtin_shuffle(v, Order{1, 0, 3, 2, 5, 4, 7, 6});
  v += __builtin_shuffle(v, Order{2, 3, 0, 1, 6, 7, 4, 5});
  return v + __builtin_shuffle(v, Order{4, 5, 6, 7, 0, 1, 2, 3});
}

inline Group larger(Group a, Group b) { return a > b ? a : b; }

inline Group group_max(Group v) {
  v = larger(v, __builtin_shuffle(v, Order{1, 0, 3, 2, 5, 4, 7, 6}));
  v = larger(v, __builtin_shuffle(v, Order{2, 3, 0, 1, 6, 7, 4, 5}));
  return larger(v, __builtin_shuffle(v, Order{4, 5, 6, 7, 0, 1, 2, 3}));
}

struct Layer {
  const float *bias, *gamma, *beta;
};

// The codes of `tdmpc2.kernels.ACTIVATIONS`.
enum Activation : int64_t { kNone, kMish, kSimNorm, kRelu, kElu, kTanh };

// Writes factor * (x + bias) to `row` and returns its mean and 1 / standard deviation.
inline std::pair<float, float> center(
    const float* x, const float* factor, const Layer& layer, int64_t dim, float* row) {
  Vec total(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    Vec v = Vec::loadu(x + j) + Vec::loadu(layer.bias + j);
    if (factor != nullptr) v = v * Vec::loadu(factor + j);
    v.store(row + j);
    total = total + v;
  }
  const float mean = sum_of(total) / dim;
  Vec squares(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec v = Vec::loadu(row + j) - Vec(mean);
    squares = at::vec::fmadd(v, v, squares);
  }
  return {mean, 1.f / std::sqrt(sum_of(squares) / dim + kEps)};
}

inline Vec scaled(const float* row, float mean, float rstd, const Layer& layer, int64_t j) {
  const Vec normed = (Vec::loadu(row + j) - Vec(mean)) * Vec(rstd);
  return at::vec::fmadd(normed, Vec::loadu(layer.gamma + j), Vec::loadu(layer.beta + j));
}

// Mish: x * n / (n + 2) with n = e(e + 2), e = exp(min(x, 20)); see `layers.mish`.
inline Vec mish(Vec v) {
  const Vec e = fast_exp(at_most(v, 20.f));
  const Vec n = e * (e + Vec(2.f));
  return v * (n * inverse(n + Vec(2.f)));
}

inline Vec mish_slope(Vec v) {
  const Vec e = fast_exp(at_most(v, 20.f));
  const Vec n = e * (e + Vec(2.f));
  const Vec r = inverse(n + Vec(2.f));
  return r * at::vec::fmadd(Vec(4.f) * v, e * (e + Vec(1.f)) * r, n);
}

// 1 - 2 / (exp(2 v) + 1), with an absolute error of 2e-7 (AVX-512) or 2e-6.
inline Vec fast_tanh(Vec v) {
  const Vec e = fast_exp(at_most(v + v, 40.f));
  return Vec(1.f) - Vec(2.f) * inverse(e + Vec(1.f));
}

// Activations of single numbers.
inline Vec activated(Vec v, int64_t act) {
  switch (act) {
    case kMish: return mish(v);
    case kRelu: return at_least(v, 0.f);
    case kElu: return Vec::blendv(fast_exp(at_most(v, 0.f)) - Vec(1.f), v, v > Vec(0.f));
    case kTanh: return fast_tanh(v);
    default: return v;
  }
}

// Derivative of ReLU, ELU or tanh, from its value y.
inline Vec slope(Vec y, int64_t act) {
  const Vec zero(0.f), one(1.f);
  switch (act) {
    case kRelu: return Vec::blendv(zero, one, y > zero);
    case kElu: return Vec::blendv(y + one, one, y > zero);
    case kTanh: return at::vec::fnmadd(y, y, one);
    default: return one;
  }
}

inline void simnorm(float* y, int64_t dim, float tau) {
  for (int64_t j = 0; j < dim; j += kGroup) {
    Group& g = *reinterpret_cast<Group*>(y + j);
    g = (g - group_max(g)) / tau;
  }
  for (int64_t j = 0; j < dim; j += kLanes) fast_exp(Vec::loadu(y + j)).store(y + j);
  for (int64_t j = 0; j < dim; j += kGroup) {
    Group& g = *reinterpret_cast<Group*>(y + j);
    g = g / group_sum(g);
  }
}

// Computes y for one row and returns mean and 1 / standard deviation. `y` may be `x`.
inline std::pair<float, float> norm_act_row(
    const float* x, const float* factor, const Layer& layer, int64_t dim, int64_t act, float tau,
    float* y) {
  const auto [mean, rstd] = center(x, factor, layer, dim, y);
  for (int64_t j = 0; j < dim; j += kLanes) {
    activated(scaled(y, mean, rstd, layer, j), act).store(y + j);
  }
  if (act == kSimNorm) simnorm(y, dim, tau);
  return {mean, rstd};
}

// Where the gradients of a layer's parameters are summed.
struct LayerGradient {
  float *bias, *gamma, *beta;
};

// Writes the gradient of x to `dx`, which may be `g`, and adds those of the parameters to `sums`. g
// is the gradient of y; `buffer` has space for two rows.
inline void norm_act_backward_row(
    const float* g, const float* x, const float* y, const float* factor, float mean, float rstd,
    const Layer& layer, int64_t dim, int64_t act, float tau, float* buffer, float* dx,
    const LayerGradient& sums) {
  float *du = buffer, *normed = buffer + dim;
  if (act == kSimNorm) {
    for (int64_t j = 0; j < dim; j += kGroup) {
      const Group d = *reinterpret_cast<const Group*>(g + j);
      const Group p = *reinterpret_cast<const Group*>(y + j);
      *reinterpret_cast<Group*>(du + j) = p * (d - group_sum(d * p)) / tau;
    }
  }
  Vec sum(0.f), product(0.f);
  for (int64_t j = 0; j < dim; j += kLanes) {
    Vec v = Vec::loadu(x + j) + Vec::loadu(layer.bias + j);
    if (factor != nullptr) v = v * Vec::loadu(factor + j);
    const Vec n = (v - Vec(mean)) * Vec(rstd), weight = Vec::loadu(layer.gamma + j);
    Vec d;
    if (act == kSimNorm) {
      d = Vec::loadu(du + j);
    } else {
      const Vec u = at::vec::fmadd(n, weight, Vec::loadu(layer.beta + j));
      d = Vec::loadu(g + j) * (act == kMish ? mish_slope(u) : slope(activated(u, act), act));
    }
    at::vec::fmadd(d, n, Vec::loadu(sums.gamma + j)).store(sums.gamma + j);
    (Vec::loadu(sums.beta + j) + d).store(sums.beta + j);
    d = d * weight;
    sum = sum + d;
    product = at::vec::fmadd(d, n, product);
    d.store(du + j);
    n.store(normed + j);
  }
  const Vec level(sum_of(sum) / dim), tilt(sum_of(product) / dim);
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec n = Vec::loadu(normed + j);
    Vec d = (Vec::loadu(du + j) - level - n * tilt) * Vec(rstd);
    if (factor != nullptr) d = d * Vec::loadu(factor + j);
    d.store(dx + j);
    (Vec::loadu(sums.bias + j) + d).store(sums.bias + j);
  }
}

inline Layer layer_of(
    const at::Tensor& bias, const at::Tensor& gamma, const at::Tensor& beta, int64_t k) {
  const int64_t at = k * bias.size(-1);
  return {
      bias.const_data_ptr<float>() + at,
      gamma.const_data_ptr<float>() + at,
      beta.const_data_ptr<float>() + at};
}

}  // namespace
