// Small random problems, and their answers by the formula in plain float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../../csrc/cpu/isa/dispatch.h"
#include "../../csrc/cpu/passes/prepare.h"
#include "../../csrc/cpu/request.h"

namespace geodiff::test {

// Every instruction set of this build that runs here, the tests' own included.
inline std::vector<const Table*> tables() {
    std::vector<const Table*> all;
    for (const std::string& name : isas()) all.push_back(&kernels_for(name));
    return all;
}

// All integer products of these.
struct NamedProducts {
    std::string name;
    const IntegerProducts* products;
};
inline std::vector<NamedProducts> integer_products() {
    std::vector<NamedProducts> all;
    for (const Table* table : tables()) {
        if (table->integers) all.push_back({table->name, table->integers});
        if (table->many) all.push_back({std::string(table->name) + ", many queries", table->many});
    }
    return all;
}

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 2654435761u + 1) {}
    uint64_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_;
    }
    double uniform() { return double(next() >> 11) * 0x1p-53; }
    double normal() {
        double sum = -6;
        for (int i = 0; i < 12; ++i) sum += uniform();
        return sum;
    }

  private:
    uint64_t state_;
};

// Bytes of n rows that vary along some lines, by `swing(i)` in row i, and a little everywhere.
template <class Swing>
std::vector<uint8_t> bytes_along_lines(int64_t n, int64_t d, int lines, Swing&& swing, double level, double noise,
                                       uint64_t seed) {
    std::vector<uint8_t> stored(size_t(n * d));
    Random random(seed);
    std::vector<double> along(size_t(lines * d)), c(static_cast<size_t>(lines));
    for (double& a : along) a = random.normal();
    for (int64_t i = 0; i < n; ++i) {
        for (double& a : c) a = swing(i) * random.normal();
        for (int64_t k = 0; k < d; ++k) {
            double value = level + noise * random.normal();
            for (int64_t j = 0; j < lines; ++j) value += c[size_t(j)] * along[size_t(j * d + k)];
            stored[size_t(i * d + k)] = uint8_t(std::min(255.0, std::max(0.0, std::round(value))));
        }
    }
    return stored;
}

inline float narrowed(float v, DType dtype) {  // to what the storage dtype holds, by cutting the mantissa
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    if (dtype == DType::bf16) bits &= 0xffff0000u;
    if (dtype == DType::f16) bits &= 0xffffe000u;
    std::memcpy(&v, &bits, 4);
    return dtype == DType::f16 && std::fabs(v) < 0x1p-14f ? 0 : v;  // no subnormal halves: see half_bits
}

inline uint16_t half_bits(float v) {  // of a value that float16 holds as a normal number, or 0
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    if (v == 0) return 0;
    return uint16_t((bits >> 16 & 0x8000u) | ((bits >> 13 & 0x3ffffu) - (112u << 10)));
}

// Rows of a dtype, and the same in float64 and centred units.
struct Points {
    DType dtype;
    int64_t n, d;
    std::vector<char> stored;
    std::vector<double> v;

    Points(DType dtype, int64_t n, int64_t d, uint64_t seed = 1) : dtype(dtype), n(n), d(d) {
        Random random(seed);
        stored.resize(size_t(n * d * item_size(dtype)));
        v.resize(size_t(n * d));
        for (int64_t i = 0; i < n; ++i) {
            const double level = 60 * random.normal();
            for (int64_t k = 0; k < d; ++k) {
                const int64_t at = i * d + k;
                const double value = level + 30 * random.normal();
                if (dtype == DType::u8) {
                    const uint8_t u = uint8_t(std::min(255.0, std::max(0.0, std::round(128 + value))));
                    stored[size_t(at)] = char(u);
                    v[size_t(at)] = double(u) - 128;
                    continue;
                }
                const float f = narrowed(float(value / 64), dtype);
                v[size_t(at)] = double(f);
                uint32_t bits;
                std::memcpy(&bits, &f, 4);
                const uint16_t half = dtype == DType::f16 ? half_bits(f) : uint16_t(bits >> 16);
                if (dtype == DType::f32)
                    std::memcpy(&stored[size_t(at * 4)], &f, 4);
                else
                    std::memcpy(&stored[size_t(at * 2)], &half, 2);
            }
        }
    }
    Rows rows() const { return {stored.data(), dtype, n, d}; }
    double unit() const { return unit_of(dtype); }
};

// The rows with their statistics, and queries at one sigma, ready to be asked.
struct Problem {
    Points points;
    Rows rows;
    Statistics found;
    Stats stats;
    std::vector<double> x, sigma;
    std::vector<int64_t> from, exclude;  // the row that a query was made from; the row that it must not see, or empty

    Problem(DType dtype, int64_t n, int64_t d, int64_t batch, double level)
        : points(dtype, n, d),
          rows(points.rows()),
          found(prepare(kernels_for("portable"), rows, 1)),
          stats(found.stats(rows)) {
        Random random(7);
        sigma.assign(size_t(batch), level * points.unit());
        for (int64_t q = 0; q < batch; ++q) {
            from.push_back(int64_t(random.next() % uint64_t(n)));
            for (int64_t k = 0; k < d; ++k)
                x.push_back(points.v[size_t(from.back() * d + k)] + sigma[size_t(q)] * random.normal());
        }
    }
    Problem(const Problem&) = delete;

    Request request(const Table& kernels, double tol = 1e-5, int threads = 2) const {
        Request r{kernels, rows, stats};
        r.batch = int64_t(sigma.size());
        r.x = x.data();
        r.sigma = sigma.data();
        r.exclude = exclude.empty() ? nullptr : exclude.data();
        r.tol = tol;
        r.threads = threads;
        return r;
    }

    // log of the weights of query q, and r by the difference form
    std::vector<double> log_weights(int64_t q) const {
        std::vector<double> l(size_t(rows.n), 0.0);
        double top = -1e308, sum = 0;
        for (int64_t i = 0; i < rows.n; ++i) {
            for (int64_t k = 0; k < rows.d; ++k) {
                const double e = x[size_t(q * rows.d + k)] - points.v[size_t(i * rows.d + k)];
                l[size_t(i)] -= e * e / (2 * sigma[size_t(q)] * sigma[size_t(q)]);
            }
            if (!exclude.empty() && exclude[size_t(q)] == i) l[size_t(i)] = kUnseen;
            top = std::max(top, l[size_t(i)]);
        }
        for (const double t : l) sum += std::exp(t - top);
        for (double& t : l) t -= top + std::log(sum);
        return l;
    }
    std::vector<double> denoised(int64_t q) const {
        std::vector<double> r(size_t(rows.d), 0.0);
        const std::vector<double> l = log_weights(q);
        for (int64_t i = 0; i < rows.n; ++i)
            for (int64_t k = 0; k < rows.d; ++k)
                r[size_t(k)] += std::exp(l[size_t(i)]) * points.v[size_t(i * rows.d + k)];
        return r;
    }
    // |r - exact r| in units of what contract 1 allows
    double error(int64_t q, const double* r, double tol) const {
        const std::vector<double> exact = denoised(q);
        double off = 0, model = 0;
        for (int64_t k = 0; k < rows.d; ++k) {
            off += (r[k] - exact[size_t(k)]) * (r[k] - exact[size_t(k)]);
            model += (exact[size_t(k)] + stats.shift) * (exact[size_t(k)] + stats.shift);
        }
        return std::sqrt(off) / stats.scale.allowed(std::sqrt(model), tol);
    }
};

// Room for the answers to a request.
struct Answers {
    std::vector<double> mean, log_sum, entropy, ess, trace, weight, mean_error, log_error;
    std::vector<int64_t> index;
    std::vector<int8_t> path;

    explicit Answers(const Request& request)
        : mean(size_t(request.batch * request.rows.d), NAN),
          log_sum(size_t(request.batch), NAN),
          entropy(log_sum),
          ess(log_sum),
          trace(log_sum),
          weight(size_t(request.batch * request.topk), NAN),
          mean_error(log_sum),
          log_error(log_sum),
          index(size_t(request.batch * request.topk), -7),
          path(size_t(request.batch), int8_t(-1)) {}
    Answer view() {
        return {mean.data(),  log_sum.data(), entropy.data(), ess.data(),        trace.data(),
                index.data(), weight.data(),  path.data(),    mean_error.data(), log_error.data()};
    }
};

}  // namespace geodiff::test
