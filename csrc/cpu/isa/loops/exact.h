// One row at a time in float64: distances, weighted rows, statistics.
#pragma once

#include "widen.h"

namespace {

constexpr int64_t kChunk = 512;  // columns widened at a time: 2 KiB, always in L1

template <class F>
inline void over_chunks(const void* row, DType dtype, int64_t d, F&& f) {
    float v[kChunk];
    const char* bytes = static_cast<const char*>(row);
    for (int64_t k = 0; k < d; k += kChunk) {
        const int64_t len = d - k < kChunk ? d - k : kChunk;
        for_dtype(dtype, [&](auto t) { widen_part<decltype(t)::value>(bytes, k, len, v); });
        f(k, len, v);
    }
}

double distance(const double* x, const void* row, DType dtype, int64_t d) {
    VecD acc[4] = {};
    double tail = 0;
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        int64_t i = 0;
        for (; i + 4 * kD <= len; i += 4 * kD) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                const VecD e = load<VecD>(x + k + i + j * kD) - as_doubles(load<HalfF>(v + i + j * kD));
                acc[j] += e * e;
            }
        for (; i < len; ++i) tail += (x[k + i] - double(v[i])) * (x[k + i] - double(v[i]));
    });
    return lane_sum<VecD, double>((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail;
}

double inner(const double* x, const void* row, DType dtype, int64_t d) {
    VecD acc[4] = {};
    double tail = 0;
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        int64_t i = 0;
        for (; i + 4 * kD <= len; i += 4 * kD)
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[j] +=
                load<VecD>(x + k + i + j * kD) * as_doubles(load<HalfF>(v + i + j * kD));
        for (; i < len; ++i) tail += x[k + i] * double(v[i]);
    });
    return lane_sum<VecD, double>((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail;
}

void axpy(double w, const void* row, DType dtype, int64_t d, double* acc) {
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        for (int64_t i = 0; i < len; ++i) acc[k + i] += w * double(v[i]);
    });
}

bool row_stats(const void* row, DType dtype, int64_t d, double* norm2, double* acc) {
    double total = 0;
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        VecD s = {};
        int64_t i = 0;
        for (; i + kD <= len; i += kD) {
            const VecD w = as_doubles(load<HalfF>(v + i));
            s += w * w;
            store(acc + k + i, load<VecD>(acc + k + i) + w);
        }
        for (; i < len; ++i) {
            total += double(v[i]) * double(v[i]);
            acc[k + i] += double(v[i]);
        }
        total += lane_sum<VecD, double>(s);
    });
    *norm2 = total;
    return total - total == 0;  // squares of float32 values cannot overflow float64: only NaN or Inf fail this
}

}  // namespace
