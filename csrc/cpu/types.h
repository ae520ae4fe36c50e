// The vocabulary of the CPU core: stored rows, their statistics, queries and answers.
#pragma once

#include <cstdint>

namespace geodiff {

enum class DType : int { u8 = 0, f16 = 1, bf16 = 2, f32 = 3 };

inline int64_t item_size(DType t) { return t == DType::u8 ? 1 : t == DType::f32 ? 4 : 2; }

// The data set as stored: n rows of d values, contiguous.
//
// Rows are used in *centred units*. uint8 storage: v = u - 128, so that model space is
// (v + 0.5)/127.5 and every row is an exact integer vector. Float storage: v is the value itself.
struct Rows {
    const void* ptr;
    DType dtype;
    int64_t n, d;

    const void* row(int64_t i) const { return static_cast<const char*>(ptr) + i * d * item_size(dtype); }
};

// What one pass over the data tells about it, in centred units.
struct Stats {
    const double* half_norm;  // [n]  |v_i|^2 / 2
    const float* away;        // [n]  |v_i - mean|, rounded up
    double radius;            // max_i |v_i - mean|
    double mean_square;       // mean_i |v_i - mean|^2
    double max_norm;          // max_i |v_i|
    double mean_norm;         // |mean|
    double max_model_norm;    // max_i |x_i| in model units, times `unit`
    double unit;              // centred units per model unit: 127.5 for uint8, 1 for floats
    double shift;             // model = (v + shift) / unit
};

struct Request {
    int64_t batch;
    const double* x;      // [batch, d]  centred units
    const double* sigma;  // [batch]     centred units
    const double* bias;   // [n] or [batch, n] or null: log weight of every row
    double tol;           // contract 1
    int64_t topk;
    int threads;
    int64_t bias_stride = 0;  // 0: the same bias for every query; else from one query's to the next

    const double* bias_of(int64_t query) const { return bias ? bias + query * bias_stride : nullptr; }
    double bias_at(int64_t query, int64_t row) const { return bias ? bias[query * bias_stride + row] : 0; }
};

// All pointers [batch] unless noted. `peak` and `log_sum` refer to the logits -|x - x_i|^2 / (2 sigma^2) + bias_i.
struct Answer {
    double* mean;     // [batch, d]  centred units
    double* log_sum;  // log sum_i exp(logit_i)
    double* entropy;  // nats
    double* ess;      // 1 / sum w^2
    double* trace;    // sum w |v - r|^2, centred units
    int64_t* index;   // [batch, topk]
    double* weight;   // [batch, topk]
    int8_t* path;     // which path answered: see Path
};

enum class Path : int8_t { screened = 0, dense = 1, dense_fine = 2, exact = 3 };

}  // namespace geodiff
