// Vectors of float32, as wide as this CPU's.

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

}  // namespace
