// Products with matrices laid out beforehand, by the library that torch itself multiplies float32
// with: MKL as a rule; oneDNN where `torch.set_float32_matmul_precision` asks for less than
// `highest` (on AMD's CPUs, see `tdmpc2.common.numerics.numeric_path`; the products are float32 all the same).

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
constexpr int64_t kPanel = 128;  // columns of a matrix that oneDNN takes at a time
constexpr int64_t kTile = 16;

inline bool by_onednn() {
  return at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST;
}

// Whether the library in question takes such matrices: MKL if torch has it, oneDNN with AVX-512.
inline bool possible() {
#ifdef CPU_CAPABILITY_AVX512
  if (by_onednn()) return true;
#endif
  return !by_onednn() && cblas_sgemm_compute != nullptr;
}

// Floats that a matrix (in, out) takes, laid out for products with `block` rows.
inline int64_t blocked_size(int64_t block, int64_t out, int64_t in) {
  if (by_onednn()) return in * out;
  return (cblas_sgemm_pack_get_size(kMatrixB, block, out, in) + 3) / 4;
}

// --- oneDNN: a panel of columns at a time, row-major (in, columns) --------------------------

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
      // The rows lie far apart: the tile after the next is fetched meanwhile.
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

// --- either ------------------------------------------------------------------------------

// Lays out a matrix (in, out), row-major, or given as its transpose (out, in).
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

// y (block, out) = x (block, in) · the blocked matrix.
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
