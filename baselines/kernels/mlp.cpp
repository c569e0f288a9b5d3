// MLPs with ReLU or ELU, optionally LayerNorm and tanh in the first layer, and their gradients.
//
// Many rows: blocks of rows pass through all layers, so that a block stays in the second-level
// cache. Few rows (oneDNN only): one layer after the other, with panels of columns of the weights,
// each of which is blocked just before it is used.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "layers.h"
#include "products.h"

namespace {

using Tensors = std::vector<Tensor>;
constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kFew = 512;  // up to this number of rows, panels are faster than blocks

// Scratch memory of a thread, kept between calls and aligned to cache lines.
float* scratch(size_t size, int which) {
  thread_local std::vector<float> memory[2];
  std::vector<float>& buffer = memory[which];
  if (buffer.size() < size + 16) buffer.resize(size + 16);
  const auto at = reinterpret_cast<uintptr_t>(buffer.data());
  return buffer.data() + (64 - at % 64) % 64 / 4;
}

int64_t rows_of(const Tensor& w, bool transposed) { return w.size(transposed ? 1 : 0); }
int64_t columns_of(const Tensor& w, bool transposed) { return w.size(transposed ? 0 : 1); }

// --- panels of columns, one layer after the other (oneDNN) --------------------------------

bool goes_by_panels(int64_t rows) { return products::by_onednn() && rows <= kFew; }

// Computes y (rows, out) = x (rows, in) · w, or x · w' if `transposed`, one panel of columns at a
// time, and calls `then(column, columns)` after each panel.
template <typename Then>
void by_panels(
    const float* x, int64_t rows, const Tensor& w, bool transposed, float* y, const Then& then) {
  TORCH_CHECK(
      w.is_contiguous() && w.scalar_type() == at::kFloat,
      "mlp: weights must be contiguous float32");
  const int64_t in = rows_of(w, transposed), out = columns_of(w, transposed);
  const int64_t panels = (out + products::kPanel - 1) / products::kPanel;
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    float* panel = scratch(products::kPanel * in, 0);
    for (int64_t p = begin; p < end; ++p) {
      const int64_t column = p * products::kPanel;
      const int64_t columns = std::min(products::kPanel, out - column);
      products::block_panel(transposed, column, columns, out, in, w.const_data_ptr<float>(), panel);
      products::multiply_panel(rows, columns, in, x, panel, out, y + column);
      then(column, columns);
    }
  });
}

void forward_by_panels(
    const Tensor& x, const Tensors& weights, const Tensors& biases, int64_t act, const Norm& norm,
    const Kept& kept, Tensor& y) {
  const int64_t rows = x.size(0), layers = weights.size();
  Tensors between(2);
  const float* input = x.const_data_ptr<float>();
  for (int64_t l = 0; l < layers; ++l) {
    const int64_t out = weights[l].size(0);
    const bool last = l + 1 == layers, normed = l == 0 && norm.scale != nullptr;
    if (!last && kept.hidden.empty()) between[l % 2] = at::empty({rows, out}, x.options());
    float* output = last ? y.mutable_data_ptr<float>()
        : kept.hidden.empty() ? between[l % 2].mutable_data_ptr<float>()
                              : kept.hidden[l];
    const float* bias = biases[l].const_data_ptr<float>();
    by_panels(input, rows, weights[l], true, output, [&](int64_t column, int64_t columns) {
      if (normed) return;
      finish(output + column, rows, columns, out, bias + column, last, act);
    });
    if (normed) {
      at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
        norm_tanh(output + begin * out, end - begin, bias, norm, out, kept, begin);
      });
    }
    input = output;
  }
}

// --- blocks of rows through all layers ----------------------------------------------------

// Returns the number of rows per block: the largest divisor of `rows` for which a block fits into
// the second-level cache; all rows if no divisor is suitable.
int64_t block_of(int64_t rows, int64_t widest) {
  const int64_t most = std::min(std::clamp<int64_t>(262144 / widest, 64, 512), rows);
  for (int64_t size = most; size >= most / 4 && size > 0; --size) {
    if (rows % size == 0) return size;
  }
  return rows;
}

// Returns the width of the widest hidden layer, from the weights or biases of all layers.
int64_t widest_of(const Tensors& params) {
  int64_t widest = 0;
  for (size_t l = 0; l + 1 < params.size(); ++l) widest = std::max(widest, params[l].size(0));
  return widest;
}

// Blocks weights (O, I), transposed or as they are, for multiplications with `block` rows.
std::vector<const float*> block_all(const Tensors& weights, bool transposed, int64_t block) {
  std::vector<size_t> sizes;
  size_t total = 0;
  for (const Tensor& w : weights) {
    TORCH_CHECK(
        w.is_contiguous() && w.scalar_type() == at::kFloat,
        "mlp: weights must be contiguous float32");
    const int64_t out = columns_of(w, transposed), in = rows_of(w, transposed);
    sizes.push_back((products::blocked_size(block, out, in) + 15) / 16 * 16);
    total += sizes.back();
  }
  float* buffer = scratch(total, 0);
  std::vector<const float*> blocked;
  for (size_t l = 0; l < weights.size(); ++l) {
    const Tensor& w = weights[l];
    const int64_t out = columns_of(w, transposed), in = rows_of(w, transposed);
    products::block_weights(transposed, block, out, in, w.const_data_ptr<float>(), buffer);
    blocked.push_back(buffer);
    buffer += sizes[l];
  }
  return blocked;
}

void forward_by_blocks(
    const Tensor& x, const std::vector<const float*>& blocked, const Tensors& biases, int64_t act,
    const Norm& norm, int64_t block, const Kept& kept, Tensor& y) {
  const int64_t rows = x.size(0), layers = blocked.size(), widest = widest_of(biases);
  TORCH_CHECK(rows % block == 0, "mlp: rows (", rows, ") must be a multiple of block = ", block);
  at::parallel_for(0, rows / block, 1, [&](int64_t begin, int64_t end) {
    float* buffer = scratch(2 * block * widest, 1);
    for (int64_t b = begin; b < end; ++b) {
      int64_t in = x.size(1);
      const float* input = x.const_data_ptr<float>() + b * block * in;
      for (int64_t l = 0; l < layers; ++l) {
        const int64_t out = biases[l].size(0);
        const bool last = l + 1 == layers;
        float* output = last ? y.mutable_data_ptr<float>() + b * block * out
            : kept.hidden.empty() ? buffer + (l % 2) * block * widest
                                  : kept.hidden[l] + b * block * out;
        const float* bias = biases[l].const_data_ptr<float>();
        products::multiply(block, out, in, input, blocked[l], output);
        if (l == 0 && norm.scale != nullptr) {
          norm_tanh(output, block, bias, norm, out, kept, b * block);
        } else {
          finish(output, block, out, out, bias, last, act);
        }
        input = output;
        in = out;
      }
    }
  });
}

// --- the operations ----------------------------------------------------------------------

Tensor result_for(const Tensor& x, const Tensors& biases) {
  TORCH_CHECK(
      biases.size() >= 2 && x.is_contiguous(), "mlp: needs two or more layers and contiguous x");
  for (size_t l = 0; l < biases.size(); ++l) {
    TORCH_CHECK(biases[l].is_contiguous(), "mlp: biases must be contiguous");
    TORCH_CHECK(
        l + 1 == biases.size() || biases[l].size(0) % kLanes == 0,
        "mlp: hidden width ", biases[l].size(0), " must be a multiple of ", kLanes);
  }
  return at::empty({x.size(0), biases.back().size(0)}, x.options());
}

// Applies an MLP without gradients, with weights blocked by `tdmpc2::block_` for `block` rows.
Tensor mlp(
    const Tensor& x_, const Tensors& blocked, const Tensors& biases, int64_t act,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
    int64_t block) {
  const Tensor x = x_.contiguous();
  Tensor y = result_for(x, biases);
  std::vector<const float*> matrices;
  for (const Tensor& p : blocked) matrices.push_back(p.const_data_ptr<float>());
  forward_by_blocks(x, matrices, biases, act, norm_of(scale, shift, eps), block, {}, y);
  return y;
}

// Returns y; with `keep` also the hidden layers and, with a norm, its input and statistics.
Tensors mlp_forward(
    const Tensor& x_, const Tensors& weights, const Tensors& biases, int64_t act,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
    bool keep) {
  const Tensor x = x_.contiguous();
  const int64_t rows = x.size(0);
  const Norm norm = norm_of(scale, shift, eps);
  Tensors results = {result_for(x, biases)};
  Kept kept;
  if (keep) {
    for (size_t l = 0; l + 1 < weights.size(); ++l) {
      results.push_back(at::empty({rows, weights[l].size(0)}, x.options()));
      kept.hidden.push_back(results.back().mutable_data_ptr<float>());
    }
    if (norm.scale != nullptr) {
      results.push_back(at::empty({rows, weights[0].size(0)}, x.options()));
      kept.raw = results.back().mutable_data_ptr<float>();
      results.push_back(at::empty({rows, 2}, x.options()));
      kept.stats = results.back().mutable_data_ptr<float>();
    }
  }
  if (goes_by_panels(rows)) {
    forward_by_panels(x, weights, biases, act, norm, kept, results[0]);
  } else {
    const int64_t block = block_of(rows, widest_of(biases));
    const auto blocked = block_all(weights, true, block);
    forward_by_blocks(x, blocked, biases, act, norm, block, kept, results[0]);
  }
  return results;
}

void backward_by_panels(
    const Tensor& grad, const Tensors& weights, const Tensors& kept, int64_t act, const Norm& norm,
    bool to_x, Tensors& results, Tensor& sums) {
  const int64_t rows = grad.size(0), hidden = weights.size() - 1, width = sums.size(1);
  const int64_t first = weights[0].size(0), total = width - 2 * first;
  const int64_t share = (rows + sums.size(0) - 1) / sums.size(0);
  float* psums = sums.mutable_data_ptr<float>();
  const float* after = grad.const_data_ptr<float>();
  int64_t place = total;
  for (int64_t l = hidden; l >= (to_x ? 0 : 1); --l) {
    const int64_t in = weights[l].size(1);
    const bool normed = l == 1 && norm.scale != nullptr;
    const float* y = l == 0 ? nullptr : kept[l - 1].const_data_ptr<float>();
    float* before = results[l].mutable_data_ptr<float>();
    place -= l == 0 ? 0 : in;
    by_panels(after, rows, weights[l], false, before, [&](int64_t column, int64_t columns) {
      if (l == 0 || normed) return;
      float* sum = psums + place + column;
      finish_backward(before + column, y + column, rows, columns, in, act, sum);
    });
    if (normed) {
      const float *raw = kept[hidden].const_data_ptr<float>();
      const float *stats = kept[hidden + 1].const_data_ptr<float>();
      at::parallel_for(0, sums.size(0), 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t row = std::min(rows, t * share), at = row * in;
          float* sum = psums + t * width;
          norm_tanh_backward(
              before + at, y + at, raw + at, stats + 2 * row, std::min(share, rows - row), norm, in,
              sum + place, sum + total, sum + total + first);
        }
      });
    }
    after = before;
  }
}

void backward_by_blocks(
    const Tensor& grad, const Tensors& weights, const Tensors& kept, int64_t act, const Norm& norm,
    bool to_x, Tensors& results, Tensor& sums) {
  const int64_t rows = grad.size(0), hidden = weights.size() - 1, width = sums.size(1);
  const int64_t first = weights[0].size(0), total = width - 2 * first;
  const int64_t block = block_of(rows, widest_of(weights)), blocks = rows / block;
  const int64_t share = (blocks + sums.size(0) - 1) / sums.size(0);
  const auto blocked = block_all(weights, false, block);
  at::parallel_for(0, sums.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* sum = sums.mutable_data_ptr<float>() + t * width;
      for (int64_t b = t * share; b < std::min(blocks, (t + 1) * share); ++b) {
        const float* after = grad.const_data_ptr<float>() + b * block * grad.size(1);
        int64_t place = total;
        for (int64_t l = hidden; l >= (to_x ? 0 : 1); --l) {
          const int64_t out = weights[l].size(0), in = weights[l].size(1);
          float* before = results[l].mutable_data_ptr<float>() + b * block * in;
          products::multiply(block, in, out, after, blocked[l], before);
          after = before;
          if (l == 0) break;
          place -= in;
          const float* y = kept[l - 1].const_data_ptr<float>() + b * block * in;
          if (l > 1 || norm.scale == nullptr) {
            finish_backward(before, y, block, in, in, act, sum + place);
            continue;
          }
          const float* raw = kept[hidden].const_data_ptr<float>() + b * block * in;
          const float* stats = kept[hidden + 1].const_data_ptr<float>() + 2 * b * block;
          norm_tanh_backward(
              before, y, raw, stats, block, norm, in, sum + place, sum + total,
              sum + total + first);
        }
      }
    }
  });
}

// Returns the gradients of x (empty unless `to_x`), of the output of the linear map of each hidden
// layer, of each hidden bias, and of scale and shift of the norm if there is one. `kept` holds the
// results of `mlp_forward` after y.
Tensors mlp_backward(
    const Tensor& grad_, const Tensors& weights, const Tensors& kept, int64_t act,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, bool to_x) {
  const Tensor grad = grad_.contiguous();
  const int64_t rows = grad.size(0), hidden = weights.size() - 1, first = weights[0].size(0);
  const Norm norm = norm_of(scale, shift, 0.);
  Tensors results = {at::empty({to_x ? rows : 0, weights[0].size(1)}, grad.options())};
  int64_t total = 0;
  for (int64_t l = 0; l < hidden; ++l) {
    results.push_back(at::empty({rows, weights[l].size(0)}, grad.options()));
    total += weights[l].size(0);
  }
  // Each thread sums the gradients of biases and norm over its own rows, so that the order of
  // summation is fixed.
  const int64_t threads = at::get_num_threads();
  Tensor sums = at::zeros({threads, total + 2 * first}, grad.options());
  const auto backward = goes_by_panels(rows) ? backward_by_panels : backward_by_blocks;
  backward(grad, weights, kept, act, norm, to_x, results, sums);
  const Tensor all = threads == 1 ? sums[0] : sums.sum(0);
  int64_t place = 0;
  for (int64_t l = 0; l < hidden; ++l) {
    results.push_back(all.narrow(0, place, weights[l].size(0)));
    place += weights[l].size(0);
  }
  if (norm.scale != nullptr) {
    results.push_back(all.narrow(0, total, first));
    results.push_back(all.narrow(0, total + first, first));
  }
  return results;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(baselines, m) {
  m.def("can_multiply() -> bool", &products::possible);
  m.def(
      "mlp(Tensor x, Tensor[] blocked, Tensor[] biases, int act, Tensor? scale, Tensor? shift, "
      "float eps, int block) -> Tensor",
      &mlp);
  m.def(
      "mlp_forward(Tensor x, Tensor[] weights, Tensor[] biases, int act, Tensor? scale, "
      "Tensor? shift, float eps, bool keep) -> Tensor[]",
      &mlp_forward);
  m.def(
      "mlp_backward(Tensor grad, Tensor[] weights, Tensor[] kept, int act, Tensor? scale, "
      "Tensor? shift, bool to_x) -> Tensor[]",
      &mlp_backward);
}
