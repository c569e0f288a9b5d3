// Matrix multiplication of bfloat16 with float32 results, by oneDNN's kernels for blocks of rows.
//
// The second factor (in, out) is tiled, as the kernels take it: panels of `width` columns, in which
// pairs of rows are interleaved. Rows and columns are padded with zeros to whole tiles.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vectors.h"

namespace {

using at::Tensor;
using bf16 = at::BFloat16;
using OptionalTensor = std::optional<Tensor>;
constexpr int64_t kTile = 32;   // numbers in a row of a tile register
constexpr int64_t kWidest = 512;  // columns of a panel
constexpr int64_t kStrip = 16;  // columns that are tiled together
constexpr int64_t kRows = 64, kRowsOfLarge = 256;  // rows of a block
// Numbers in a panel at most, and in weights that stay in the second-level cache.
constexpr int64_t kPanelSize = int64_t(1) << 19, kLargeLayer = int64_t(1) << 20;

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline Tensor contiguous(const OptionalTensor& x) { return x ? x->contiguous() : Tensor(); }

// Address of an entry of a tensor; null if there is no tensor.
template <typename T>
const T* data(const Tensor& x, int64_t at) {
  return x.defined() ? x.const_data_ptr<T>() + at : nullptr;
}

// Memory that is aligned to cache lines and not initialized.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : memory_(at::getCPUAllocator()->allocate(size * sizeof(T))) {}
  T* get() const { return static_cast<T*>(memory_.get()); }

 private:
  at::DataPtr memory_;
};

// Rounds 2 * kLanes numbers.
inline void store_rounded(Vec low, Vec high, bf16* y) {
#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
  _mm512_storeu_si512(y, (__m512i)_mm512_cvtne2ps_pbh(high, low));
#else
  at::vec::convert_from_float<bf16>(low, high).store(y);
#endif
}

inline void round_row(const float* x, int64_t size, bf16* y) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= size; j += 2 * kLanes) {
    store_rounded(Vec::loadu(x + j), Vec::loadu(x + j + kLanes), y + j);
  }
  for (; j < size; ++j) y[j] = x[j];
}

inline void round_row(const bf16* x, int64_t size, bf16* y) {
  std::memcpy(y, x, size * sizeof(bf16));
}

inline void widen_row(const bf16* x, int64_t size, float* y) {
  for (int64_t j = 0; j < size; ++j) y[j] = x[j];
}

struct Layout {
  int64_t width, panels, depth;

  Layout(int64_t out, int64_t in) {
    // A product begins at any even row and takes whole tiles.
    depth = round_up(in, kTile) + kTile;
    const int64_t widest = std::clamp<int64_t>(kPanelSize / depth / kTile * kTile, 64, kWidest);
    panels = (out + widest - 1) / widest;
    width = round_up((out + panels - 1) / panels, kTile);
  }
  int64_t columns() const { return panels * width; }
  int64_t size() const { return columns() * depth; }
  int64_t rows_of_block() const { return size() > kLargeLayer ? kRowsOfLarge : kRows; }
};

// Tiles kStrip columns, from `column` on, of the transpose of a row-major matrix (out, in).
inline void tile_transposed(
    const float* source, int64_t out, int64_t in, int64_t column, const Layout& l, bf16* tiled) {
  alignas(64) bf16 tile[kStrip * kTile];
  bf16* strip = tiled + column / l.width * l.width * l.depth + column % l.width * 2;
  const int64_t rows = std::clamp<int64_t>(out - column, 0, kStrip);
  for (int64_t i = 0; i < l.depth; i += kTile) {
    const int64_t size = std::clamp<int64_t>(in - i, 0, kTile);
    if (rows < kStrip || size < kTile) std::memset(tile, 0, sizeof(tile));
    for (int64_t r = 0; r < rows && size > 0; ++r) {
      round_row(source + (column + r) * in + i, size, tile + r * kTile);
    }
    at::vec::transpose_mxn<float>(  // 16 x 16 pairs
        reinterpret_cast<float*>(tile), kTile / 2, reinterpret_cast<float*>(strip + i * l.width),
        l.width, kStrip, kStrip);
  }
}

inline void interleave(const bf16* a, const bf16* b, int64_t size, bf16* y) {
  for (int64_t j = 0; j < size; ++j) {
    y[2 * j] = a[j];
    y[2 * j + 1] = b[j];
  }
}

inline void interleave(const float* a, const float* b, int64_t size, bf16* y) {
  int64_t j = 0;
#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
  alignas(64) static constexpr auto order = [] {
    std::array<uint16_t, 32> order{};
    for (int i = 0; i < 32; ++i) order[i] = i / 2 + i % 2 * 16;
    return order;
  }();
  for (; j + kLanes <= size; j += kLanes) {
    const auto pair = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(b + j), _mm512_loadu_ps(a + j));
    _mm512_storeu_si512(
        y + 2 * j, _mm512_permutexvar_epi16(_mm512_load_si512(order.data()), pair));
  }
#endif
  for (; j < size; ++j) {
    y[2 * j] = a[j];
    y[2 * j + 1] = b[j];
  }
}

// Tiles a pair of rows of a row-major matrix (in, out), of which `ld` is the distance of rows.
template <typename T>
void tile_rows(
    const T* source, int64_t ld, int64_t out, int64_t in, int64_t pair, const Layout& l,
    bf16* tiled) {
  static const std::array<T, kWidest> zeros{};
  for (int64_t p = 0; p < l.panels; ++p) {
    bf16* y = tiled + (p * l.depth + 2 * pair) * l.width;
    const int64_t column = p * l.width, size = std::clamp<int64_t>(out - column, 0, l.width);
    const T* row = source + 2 * pair * ld + column;
    if (2 * pair + 1 < in) {
      interleave(row, row + ld, size, y);
    } else {  // the last row of an odd number, or padding
      interleave(2 * pair < in ? row : zeros.data(), zeros.data(), size, y);
    }
    std::memset(y + 2 * size, 0, 2 * (l.width - size) * sizeof(bf16));
  }
}

// Transposes rows x (kTile, columns) to y (columns, kTile); columns are a multiple of kStrip.
inline void transpose_tile(const bf16* x, int64_t columns, bf16* y, int64_t ldy) {
  alignas(64) bf16 pairs[kStrip * kTile];
  for (int64_t c = 0; c < columns; c += kStrip) {
    for (int64_t r = 0; r < kTile; r += 2) {
      const bf16* row = x + r * columns + c;
      interleave(row, row + columns, kStrip, pairs + r * kStrip);
    }
    at::vec::transpose_mxn<float>(
        reinterpret_cast<float*>(pairs), kStrip, reinterpret_cast<float*>(y + c * ldy), ldy / 2,
        kStrip, kStrip);
  }
}

// Computes the product y (rows, columns) of x (rows, size) and the rows of a tiled matrix from
// `begin` on, or adds it to y. Rows of x are padded with zeros to whole tiles.
inline void multiply(
    int64_t rows, const bf16* x, int64_t ldx, int64_t size, const bf16* tiled, const Layout& l,
    int64_t begin, bool add, float* y) {
  for (int64_t p = 0; p < l.panels; ++p) {
    at::native::cpublas::brgemm(
        rows, l.width, round_up(size, kTile), ldx, l.width, l.columns(), add, x,
        tiled + (p * l.depth + begin) * l.width, y + p * l.width);
  }
}

}  // namespace
