// SIMD vectors of float32 and the functions on them that the kernels share.

#pragma once

#include <ATen/cpu/vec/vec.h>

namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Vec::size();

inline float sum_of(Vec v) {
#ifdef CPU_CAPABILITY_AVX512
  return _mm512_reduce_add_ps(v);
#else
  float lanes[kLanes], total = 0.f;
  v.store(lanes);
  for (int64_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
#endif
}

// Minimum (maximum) of v and a bound that is not NaN; NaN if v is NaN. Uses one instruction, which
// returns its second operand if either is NaN. `at::vec::minimum` also checks the bound for NaN,
// which makes Mish three times slower on Intel CPUs.
inline Vec at_most(Vec v, float bound) {
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_min_ps(_mm512_set1_ps(bound), v);
#elif defined(CPU_CAPABILITY_AVX2)
  return _mm256_min_ps(_mm256_set1_ps(bound), v);
#else
  return at::vec::minimum(v, Vec(bound));
#endif
}

inline Vec at_least(Vec v, float bound) {
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_max_ps(_mm512_set1_ps(bound), v);
#elif defined(CPU_CAPABILITY_AVX2)
  return _mm256_max_ps(_mm256_set1_ps(bound), v);
#else
  return at::vec::maximum(v, Vec(bound));
#endif
}

// exp(v); NaN for NaN. With AVX-512, the relative error is 2e-7: 2^n e^r with |r| <= ln(2) / 2, where
// e^r is a minimax polynomial of degree 6 (error 2e-9). Results outside the range of float32 become
// 0 or infinity. Others use PyTorch's `exp_u20`. With AVX2, its relative error is 2e-6, and results
// that are too large become finite.
inline Vec fast_exp(Vec v) {
#ifdef CPU_CAPABILITY_AVX512
  const __m512 x = at_least(v, -128.f);
  const __m512 n = _mm512_roundscale_ps(
      _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln(2) as a sum of two constants, the first with so few bits that its product with n is exact.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(0.00138436071f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00837419555f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0416680053f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.166664302f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.49999994f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);
#else
  return Vec::blendv(v.exp_u20(), v, v != v);  // of NaN, exp_u20 is infinite
#endif
}

}  // namespace
