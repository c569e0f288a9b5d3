// Gradients of a layer with matrix multiplications in bfloat16.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <tuple>
#include <vector>

#include "bf16.h"
#include "rows.h"

namespace {

// One of the inputs that form x (rows, I), its columns of the weights, and what is computed of it.
struct Input {
  Tensor x, weights;           // tiled weights of its columns, if its gradient is needed
  int64_t begin, size;         // columns
  Layout by_weights, by_rows;  // of the tiled weights, and of the tiled x
  Tensor tiled, gradient, sum = {};  // sum of the gradients of several layers
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

// Returns the gradients of x, tail, weight, bias, gamma and beta; that of x or tail is empty without
// tiled weights (of `bf16_tiled_columns`) and that of the weight unless it is needed. `grad` is the
// gradient of y; y, products and stats are the results of `bf16_layer`.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> bf16_layer_backward(
    const Tensor& grad_, const Tensor& x, const OptionalTensor& tail,
    const OptionalTensor& weights_of_x, const OptionalTensor& weights_of_tail, const Tensor& y_,
    const Tensor& products_, const Tensor& stats_, const Tensor& bias_,
    const OptionalTensor& gamma_, const OptionalTensor& beta_, const OptionalTensor& factor_,
    int64_t group, double tau, bool needs_weight) {
  const Tensor grad = grad_.contiguous(), bias = bias_.contiguous(), gamma = contiguous(gamma_);
  const Tensor beta = contiguous(beta_), factor = contiguous(factor_), y = y_.contiguous();
  const Tensor products = products_.contiguous(), stats = stats_.contiguous();
  const bool each = bias.dim() == 2 && x.dim() == 3;  // each layer has its own x
  const int64_t num = bias.dim() == 1 ? 1 : bias.size(0), out = bias.size(-1);
  const int64_t rows = grad.numel() / (num * out), in = x.size(-1) + (tail ? tail->size(-1) : 0);
  const int64_t width = round_up(out, kTile), depth = round_up(rows, kTile);
  const auto floats = bias.options();

  std::vector<Input> inputs;
  const auto add_input = [&](const Tensor& x, const OptionalTensor& weights, int64_t begin) {
    const int64_t size = x.size(-1);
    Input input = {x.contiguous(), contiguous(weights), begin, size, {size, out}, {size, rows}};
    input.tiled = at::empty(needs_weight ? input.by_rows.size() : 0, products.options());
    input.gradient = at::empty(weights ? x.sizes() : at::IntArrayRef{0}, x.options());
    if (weights && num > 1 && !each) {
      input.sum = at::empty({rows, input.by_weights.columns()}, floats);
    }
    inputs.push_back(input);
  };
  add_input(x, weights_of_x, 0);
  if (tail) add_input(*tail, weights_of_tail, x.size(-1));

  Tensor dweight = at::empty(needs_weight ? num * out * in : 0, floats);
  float* pdw = dweight.mutable_data_ptr<float>();
  Scratch<bf16> transposed(needs_weight ? width * depth : 0);
  // Each thread sums the parameter gradients of its own range of rows, so that the order of
  // summation is fixed.
  const int64_t threads = at::get_num_threads();
  const int64_t share = round_up((rows + threads - 1) / threads, kRows);
  Tensor sums = at::zeros({threads, 3, num, out}, floats);
  for (int64_t k = 0; k < num; ++k) {
    const Layer layer = {
        data<float>(bias, k * out), data<float>(gamma, k * out), data<float>(beta, k * out)};
    at::parallel_for(0, threads, 1, [&](int64_t first_thread, int64_t last_thread) {
      Scratch<bf16> d(kRows * width);
      Scratch<float> buffers(4 * out);
      float *g = buffers.get(), *row_products = g + out;
      for (int64_t t = first_thread; t < last_thread; ++t) {
        float* dbias = sums.mutable_data_ptr<float>() + (t * 3 * num + k) * out;
        const LayerGradient total = {dbias, dbias + num * out, dbias + 2 * num * out};
        const int64_t stop = std::min(rows, (t + 1) * share);
        for (int64_t first = t * share; first < stop; first += kRows) {
          const int64_t size = std::min(kRows, stop - first);
          for (int64_t i = 0; i < size; ++i) {
            const int64_t at = k * rows + first + i;
            load_row(grad, out, at * out, g);
            if (gamma.defined()) {
              load_row(products, out, at * out, row_products);
              norm_act_backward_row(
                  g, row_products, group != 0 ? data<float>(y, at * out) : nullptr,
                  data<float>(factor, at * out), *data<float>(stats, 2 * at),
                  *data<float>(stats, 2 * at + 1), layer, out, group, static_cast<float>(tau),
                  row_products + out, g, total);
            } else {
              for (int64_t j = 0; j < out; ++j) dbias[j] += g[j];
            }
            bf16* row = d.get() + i * width;
            round_row(g, out, row);
            std::memset(row + out, 0, (width - out) * sizeof(bf16));
          }
          const int64_t padded = round_up(size, kTile);
          std::memset(d.get() + size * width, 0, (padded - size) * width * sizeof(bf16));
          for (int64_t i = 0; i < padded && needs_weight; i += kTile) {
            transpose_tile(d.get() + i * width, width, transposed.get() + first + i, depth);
          }
          for (Input& input : inputs) {
            if (!input.weights.defined()) continue;
            const int64_t columns = input.by_weights.columns();
            Scratch<float> own(input.sum.defined() ? 0 : size * columns);
            float* target = own.get();
            if (input.sum.defined()) target = input.sum.mutable_data_ptr<float>() + first * columns;
            multiply(
                size, d.get(), width, out, data<bf16>(input.weights, k * input.weights.size(-1)),
                input.by_weights, 0, input.sum.defined() && k > 0, target);
            if (input.sum.defined() && k + 1 < num) continue;
            const int64_t at = (each ? k * rows : 0) + first;
            for (int64_t i = 0; i < size; ++i) {
              store_row(target + i * columns, input.size, (at + i) * input.size, input.gradient);
            }
          }
        }
      }
      at::native::cpublas::brgemm_release();
    });
    if (!needs_weight) continue;
    for (Input& input : inputs) {
      if (each || k == 0) tile_input(input, each ? k * rows : 0, rows);
    }
    at::parallel_for(0, (out + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin * kRows; first < std::min(out, end * kRows); first += kRows) {
        const int64_t size = std::min(kRows, out - first);
        for (const Input& input : inputs) {
          const int64_t columns = input.by_rows.columns();
          Scratch<float> products_of_block(size * columns);
          multiply(
              size, transposed.get() + first * depth, depth, rows, data<bf16>(input.tiled, 0),
              input.by_rows, 0, false, products_of_block.get());
          for (int64_t i = 0; i < size; ++i) {
            std::memcpy(
                pdw + (k * out + first + i) * in + input.begin,
                products_of_block.get() + i * columns, input.size * sizeof(float));
          }
        }
      }
      at::native::cpublas::brgemm_release();
    });
  }
  const Tensor total = threads == 1 ? sums[0] : sums.sum(0);
  const auto like_bias = [&](int64_t i) { return total[i].reshape(bias.sizes()); };
  if (needs_weight) {
    dweight = num == 1 && bias.dim() == 1 ? dweight.view({out, in}) : dweight.view({num, out, in});
  }
  return {
      inputs[0].gradient, tail ? inputs[1].gradient : at::empty(0, floats), dweight, like_bias(0),
      like_bias(1), like_bias(2)};
}

}  // namespace
