// Matrix multiplication with blocked weights, by the library that torch uses for float32: MKL, or
// oneDNN if `torch.set_float32_matmul_precision` is lower than `highest`. The latter is set on AMD
// CPUs (`tdmpc2.common.numerics.numeric_path`); the multiplications are in float32 in both cases.

#pragma once

#include <ATen/Context.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstring>

namespace products {

extern "C" {
size_t cblas_sgemm_pack_get_size(int identifier, int m, int n, int k) __attribute__((weak));
void cblas_sgemm_pack(
    int layout, int identifier, int trans, int m, int n, int k, float alpha, const float* src,
    int ld, float* dest) __attribute__((weak));
void cblas_sgemm_compute(
    int layout, int transa, int transb, int m, int n, int k, const float* a, int lda,
    const float* b, int ldb, float beta, float* c, int ldc) __attribute__((weak));
}

enum { kRowMajor = 101, kNoTrans = 111, kTrans = 112, kPacked = 151, kMatrixB = 162 };
constexpr int64_t kPanel = 128;  // columns of a matrix that oneDNN multiplies at a time
constexpr int64_t kTile = 16;

inline bool by_onednn() {
  return at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST;
}

// Whether the library supports blocked weights: MKL if torch is built with it, oneDNN with AVX-512.
inline bool possible() {
#ifdef CPU_CAPABILITY_AVX512
  if (by_onednn()) return true;
#endif
  return !by_onednn() && cblas_sgemm_compute != nullptr;
}

// Number of floats of a blocked matrix (in, out) for multiplications with `block` rows.
inline int64_t blocked_size(int64_t block, int64_t out, int64_t in) {
  if (by_onednn()) return in * out;
  return (cblas_sgemm_pack_get_size(kMatrixB, block, out, in) + 3) / 4;
}

// --- oneDNN: panels of columns, row-major (in, columns) -------------------------------------

inline void block_panel(
    bool transposed, int64_t column, int64_t columns, int64_t out, int64_t in, const float* source,
    float* panel) {
  if (!transposed) {
    for (int64_t i = 0; i < in; ++i) {
      std::memcpy(panel + i * columns, source + i * out + column, columns * sizeof(float));
    }
    return;
  }
  for (int64_t i = 0; i < in; i += kTile) {
    const int64_t rows = std::min(kTile, in - i);
    for (int64_t c = 0; c < columns; c += kTile) {
      const int64_t num = std::min(kTile, columns - c);
      const float* tile = source + (column + c) * in + i;
      // Prefetch the tile after the next: its rows are far apart in memory.
      for (int64_t r = 0; r < num; ++r) __builtin_prefetch(tile + r * in + 2 * kTile);
      at::vec::transpose_mxn<float>(tile, in, panel + i * columns + c, columns, num, rows);
    }
  }
}

inline void multiply_panel(
    int64_t rows, int64_t columns, int64_t in, const float* x, const float* panel, int64_t out,
    float* y) {
  at::native::cpublas::brgemm(rows, columns, in, in, columns, out, false, x, panel, y, false);
}

// --- both libraries ----------------------------------------------------------------------

// Writes a row-major matrix (in, out), or its transpose (out, in), to `blocked`.
inline void block_weights(
    bool transposed, int64_t block, int64_t out, int64_t in, const float* source, float* blocked) {
  if (!by_onednn()) {
    cblas_sgemm_pack(
        kRowMajor, kMatrixB, transposed ? kTrans : kNoTrans, block, out, in, 1.f, source,
        transposed ? in : out, blocked);
    return;
  }
  for (int64_t j = 0; j < out; j += kPanel) {
    block_panel(transposed, j, std::min(kPanel, out - j), out, in, source, blocked + j * in);
  }
}

// Computes y (block, out) = x (block, in) · blocked matrix (in, out).
inline void multiply(
    int64_t block, int64_t out, int64_t in, const float* x, const float* blocked, float* y) {
  if (!by_onednn()) {
    cblas_sgemm_compute(
        kRowMajor, kNoTrans, kPacked, block, out, in, x, in, blocked, in, 0.f, y, out);
    return;
  }
  for (int64_t j = 0; j < out; j += kPanel) {
    multiply_panel(block, std::min(kPanel, out - j), in, x, blocked + j * in, out, y + j);
  }
}

}  // namespace products
