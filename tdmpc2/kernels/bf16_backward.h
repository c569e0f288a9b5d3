// Gradients of a layer with matrix multiplications in bfloat16.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <tuple>
#include <vector>

#include "bf16.h"
#include "rows.h"

namespace {

constexpr int64_t kPart = 512;  // rows per thread whose gradients are summed at a time

// One of the inputs that form x (rows, I), its columns of the weights, and what is computed of it.
struct Input {
  Tensor x, weights;           // tiled weights of its columns, if its gradient is needed
  int64_t begin, size;         // columns
  Layout by_weights, by_rows;  // of the tiled weights, and of tiled rows of x
  Tensor tiled, gradient;
  Tensor dweight;              // of its columns, (K, O, columns), with the padding of the layout
  Tensor sum = {};             // sum of the gradients of several layers, for a part of the rows
};

void tile_input(Input& input, int64_t first, int64_t rows) {
  const int64_t size = input.size;
  bf16* tiled = input.tiled.mutable_data_ptr<bf16>();
  at::parallel_for(0, round_up(rows, kTile) / 2, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      if (input.x.scalar_type() == at::kFloat) {
        const float* x = input.x.const_data_ptr<float>() + first * size;
        tile_rows(x, size, size, rows, pair, input.by_rows, tiled);
      } else {
        const bf16* x = input.x.const_data_ptr<bf16>() + first * size;
        tile_rows(x, size, size, rows, pair, input.by_rows, tiled);
      }
    }
  });
}

void store_row(const float* x, int64_t size, int64_t at, Tensor& y) {
  if (y.scalar_type() == at::kFloat) {
    std::memcpy(y.mutable_data_ptr<float>() + at, x, size * sizeof(float));
  } else {
    round_row(x, size, y.mutable_data_ptr<bf16>() + at);
  }
}

void load_row(const Tensor& x, int64_t size, int64_t at, float* y) {
  if (x.scalar_type() == at::kFloat) {
    std::memcpy(y, x.const_data_ptr<float>() + at, size * sizeof(float));
  } else {
    widen_row(x.const_data_ptr<bf16>() + at, size, y);
  }
}

// Tiles columns of the weights (K, O, I) of the layers `heads`, or of all, as the second factor of
// the gradient of x.
Tensor bf16_tiled_columns(
    const Tensor& weight_, const OptionalTensor& heads_, int64_t begin, int64_t size) {
  const Tensor weight = weight_.contiguous(), heads = contiguous(heads_);
  const int64_t num = heads.defined() ? heads.size(0) : weight.size(0);
  const int64_t out = weight.size(1), in = weight.size(2), pairs = round_up(out, kTile) / 2;
  const Layout layout(size, out);
  Tensor tiled = at::empty({num, layout.size()}, weight.options().dtype(at::kBFloat16));
  const float* source = weight.const_data_ptr<float>() + begin;
  bf16* target = tiled.mutable_data_ptr<bf16>();
  at::parallel_for(0, num * pairs, kRows, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t k = i / pairs, head = heads.defined() ? *data<int64_t>(heads, k) : k;
      tile_rows(
          source + head * out * in, in, size, out, i % pairs, layout, target + k * layout.size());
    }
  });
  return tiled;
}

// What a layer, or K layers, computed, and the gradient of the result.
struct Results {
  Tensor grad, y, products, stats, bias, gamma, beta, factor;
  int64_t num, out, rows, act;
  float tau;

  Layer layer(int64_t k) const {
    return {
        data<float>(bias, k * out), data<float>(gamma, k * out), data<float>(beta, k * out)};
  }
};

// Turns the gradient g of the activation's values y into that of its inputs.
void scale_by_slopes(const float* y, int64_t dim, int64_t act, float* g) {
  for (int64_t j = 0; j < dim; j += kLanes) {
    (Vec::loadu(g + j) * slope(Vec::loadu(y + j), act)).store(g + j);
  }
}

// Writes the rounded gradients of the products of layer k to d (rows, width), padded with zeros to
// whole tiles, and adds those of the parameters to `sums`. `buffer` has space for four rows.
void gradient_of_products(
    const Results& r, int64_t k, int64_t first, int64_t rows, int64_t width, float* buffer,
    bf16* d, const LayerGradient& sums) {
  float *g = buffer, *values = buffer + r.out;
  for (int64_t i = 0; i < rows; ++i, d += width) {
    const int64_t row = k * r.rows + first + i, at = row * r.out;
    load_row(r.grad, r.out, at, g);
    if (r.gamma.defined()) {
      load_row(r.products, r.out, at, values);
      const float* stats = data<float>(r.stats, 2 * row);
      norm_act_backward_row(
          g, values, r.act == kSimNorm ? data<float>(r.y, at) : nullptr, data<float>(r.factor, at),
          stats[0], stats[1], r.layer(k), r.out, r.act, r.tau, values + r.out, g, sums);
    } else {
      if (r.act != kNone) {
        load_row(r.y, r.out, at, values);
        scale_by_slopes(values, r.out, r.act, g);
      }
      for (int64_t j = 0; j < r.out; ++j) sums.bias[j] += g[j];
    }
    round_row(g, r.out, d);
    std::memset(d + r.out, 0, (width - r.out) * sizeof(bf16));
  }
  std::memset(d, 0, (round_up(rows, kTile) - rows) * width * sizeof(bf16));
}

// Computes the gradients of rows of an input from those of the products d. `first` is their place
// in the part of the rows, and `at` in the input. An input that all layers share has the sum of
// their gradients.
void gradient_of_input(
    Input& input, const bf16* d, int64_t width, const Results& r, int64_t k, int64_t first,
    int64_t rows, int64_t at) {
  const int64_t columns = input.by_weights.columns();
  const bool add = input.sum.defined();
  Scratch<float> scratch(add ? 0 : rows * columns);
  float* y = add ? input.sum.mutable_data_ptr<float>() + first * columns : scratch.get();
  multiply(
      rows, d, width, r.out, data<bf16>(input.weights, k * input.weights.size(-1)),
      input.by_weights, 0, add && k > 0, y);
  if (add && k + 1 < r.num) return;
  for (int64_t i = 0; i < rows; ++i) {
    store_row(y + i * columns, input.size, (at + i) * input.size, input.gradient);
  }
}

// Computes the gradient of the weights of layer k, or adds to it, from the transposed gradients
// (O, depth) of the products of `rows` rows.
void gradient_of_weights(
    Input& input, const bf16* transposed, int64_t depth, int64_t k, int64_t rows, bool add) {
  const int64_t out = input.dweight.size(1), columns = input.by_rows.columns();
  float* dweight = input.dweight.mutable_data_ptr<float>() + k * out * columns;
  at::parallel_for(0, (out + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kRows; first < std::min(out, end * kRows); first += kRows) {
      multiply(
          std::min(kRows, out - first), transposed + first * depth, depth, rows,
          data<bf16>(input.tiled, 0), input.by_rows, 0, add, dweight + first * columns);
    }
    at::native::cpublas::brgemm_release();
  });
}

// Returns the gradients of x, tail, weight, bias, gamma and beta. That of x or tail is empty
// without its tiled weights (`bf16_tiled_columns`), and that of the weight unless it is needed.
// `grad` is the gradient of y; y, products and stats are the results of `bf16_layer`.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> bf16_layer_backward(
    const Tensor& grad, const Tensor& x, const OptionalTensor& tail,
    const OptionalTensor& weights_of_x, const OptionalTensor& weights_of_tail, const Tensor& y,
    const Tensor& products, const Tensor& stats, const Tensor& bias, const OptionalTensor& gamma,
    const OptionalTensor& beta, const OptionalTensor& factor, int64_t act, double tau,
    bool needs_weight) {
  const bool one = bias.dim() == 1, each = !one && x.dim() == 3;  // each layer has its own x
  const int64_t num = one ? 1 : bias.size(0), out = bias.size(-1);
  const int64_t rows = grad.numel() / (num * out), in = x.size(-1) + (tail ? tail->size(-1) : 0);
  const Results r = {
      grad.contiguous(),  y.contiguous(),    products.contiguous(), stats.contiguous(),
      bias.contiguous(),  contiguous(gamma), contiguous(beta),      contiguous(factor),
      num, out, rows, act, static_cast<float>(tau)};
  const auto floats = bias.options();
  const int64_t threads = at::get_num_threads(), part = std::min(rows, kPart * threads);
  std::vector<int64_t> sizes = bias.sizes().vec();
  sizes.push_back(in);
  Tensor dweight = at::empty(needs_weight ? sizes : std::vector<int64_t>{0}, floats);
  std::vector<Input> inputs;
  const auto add_input = [&](const Tensor& x, const OptionalTensor& weights, int64_t begin) {
    const int64_t size = x.size(-1);
    Input input = {x.contiguous(), contiguous(weights), begin, size, {size, out}, {size, part}};
    const int64_t columns = input.by_rows.columns();
    if (needs_weight) {
      input.tiled = at::empty(input.by_rows.size(), products.options());
      const bool whole = size == in && columns == in;  // neither another input nor padding
      input.dweight = whole ? dweight.view({num, out, in}) : at::empty({num, out, columns}, floats);
    }
    input.gradient = at::empty(weights ? x.sizes() : at::IntArrayRef{0}, x.options());
    if (weights && num > 1 && !each) {
      input.sum = at::empty({part, input.by_weights.columns()}, floats);
    }
    inputs.push_back(input);
  };
  add_input(x, weights_of_x, 0);
  if (tail) add_input(*tail, weights_of_tail, x.size(-1));

  const int64_t width = round_up(out, kTile), depth = round_up(part, kTile);
  Scratch<bf16> transposed(needs_weight ? width * depth : 0);
  const int64_t height = Layout(in, out).rows_of_block();
  // Each thread sums the parameter gradients of its own rows of each part, so that the order of
  // summation is fixed.
  const int64_t share = round_up((part + threads - 1) / threads, kRows);
  Tensor sums = at::zeros({threads, 3, num, out}, floats);
  const auto backward = [&](int64_t k, int64_t begin, int64_t size) {
    const int64_t start = (each ? k * rows : 0) + begin;  // of the part, in the inputs
    at::parallel_for(0, threads, 1, [&](int64_t from, int64_t to) {
      Scratch<bf16> d(height * width);
      Scratch<float> buffer(4 * out);
      for (int64_t t = from; t < to; ++t) {
        float* dbias = sums.mutable_data_ptr<float>() + (t * 3 * num + k) * out;
        const LayerGradient total = {dbias, dbias + num * out, dbias + 2 * num * out};
        const int64_t stop = std::min(size, (t + 1) * share);
        for (int64_t first = t * share; first < stop; first += height) {
          const int64_t few = std::min(height, stop - first);
          gradient_of_products(r, k, begin + first, few, width, buffer.get(), d.get(), total);
          for (int64_t i = 0; i < few && needs_weight; i += kTile) {
            transpose_tile(d.get() + i * width, width, transposed.get() + first + i, depth);
          }
          for (Input& input : inputs) {
            if (!input.weights.defined()) continue;
            gradient_of_input(input, d.get(), width, r, k, first, few, start + first);
          }
        }
      }
      at::native::cpublas::brgemm_release();
    });
    for (Input& input : inputs) {
      if (!needs_weight) break;
      if (each || k == 0) tile_input(input, start, size);
      gradient_of_weights(input, transposed.get(), depth, k, size, begin > 0);
    }
  };
  for (int64_t begin = 0; begin < rows; begin += part) {
    for (int64_t k = 0; k < num; ++k) backward(k, begin, std::min(part, rows - begin));
  }
  for (const Input& input : inputs) {
    if (!needs_weight || input.dweight.is_alias_of(dweight)) continue;
    dweight.view({num, out, in})
        .narrow(2, input.begin, input.size)
        .copy_(input.dweight.narrow(2, 0, input.size));
  }
  const Tensor total = threads == 1 ? sums[0] : sums.sum(0);
  const auto like_bias = [&](int64_t i) { return total[i].reshape(bias.sizes()); };
  return {
      inputs[0].gradient, tail ? inputs[1].gradient : at::empty(0, floats), dweight, like_bias(0),
      like_bias(1), like_bias(2)};
}

}  // namespace
