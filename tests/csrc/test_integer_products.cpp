// The integer products of every instruction set, bit for bit against plain loops, VNNI's also where it does not run.
#include <doctest/doctest.h>

#include <algorithm>

#include "../../csrc/cpu/products/digits.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

int64_t digit_at(const std::vector<char>& digits, int bits, int64_t i) {
    if (bits == 8) return reinterpret_cast<const int8_t*>(digits.data())[i];
    return reinterpret_cast<const int16_t*>(digits.data())[i];
}

// Digits at random, with the extremes among them.
std::vector<char> random_digits(int64_t count, int bits, Random& random) {
    std::vector<char> out(size_t(count * bits / 8));
    for (char& byte : out) byte = char(random.next());
    for (int64_t i = 0; i < count; i += 5) {  // -2^(bits-1) and 2^(bits-1) - 1, which products must bear
        const int16_t extreme = int16_t(i % 2 ? -(1 << (bits - 1)) : (1 << (bits - 1)) - 1);
        std::memcpy(&out[size_t(i * bits / 8)], &extreme, size_t(bits / 8));
    }
    return out;
}

}  // namespace

TEST_CASE("first product: exact for every group, and shapes that divide nothing") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const IntegerProducts& products = *table->integers;
        const int bits = products.layout.digit_bits;
        for (const auto& [n, d] : {std::pair<int, int>{1, 1}, {5, 63}, {7, 65}, {25, 300}, {3, 5000}, {2, 9000}}) {
            const Points points(DType::u8, n, d, uint64_t(d));
            for (const bool tailed : {false, true})  // rows that go on in another place
                for (int group = 1; group <= products.layout.dot_group; ++group) {
                    const int groups = 2;
                    const Points tail(DType::u8, n, kTail, 77);
                    const int64_t dp = padded(d), dq = dp + (tailed ? kTail : 0), slots = groups * group, lds = n + 3;
                    Random random{uint64_t(group)};
                    std::vector<char> digits = random_digits(slots * dq, bits, random);
                    std::vector<int64_t> total(size_t(slots), 0);
                    const auto at = [&](int64_t q, int64_t k) {
                        return q / group * group * dq + k / kPad * kPad * group + q % group * kPad + k % kPad;
                    };
                    for (int64_t q = 0; q < slots; ++q)
                        for (int64_t k = 0; k < dq; ++k) {
                            if (k >= d && k < dp)
                                std::memset(&digits[size_t(at(q, k) * bits / 8)], 0, size_t(bits / 8));
                            total[size_t(q)] += digit_at(digits, bits, at(q, k));
                        }
                    std::vector<double> S(size_t(slots * lds), -12345.0);
                    products.dot(reinterpret_cast<const uint8_t*>(points.stored.data()), d,
                                 tailed ? reinterpret_cast<const uint8_t*>(tail.stored.data()) : nullptr, n,
                                 digits.data(), total.data(), dq, groups, group, d, S.data(), lds,
                                 tailed ? reinterpret_cast<const uint8_t*>(points.stored.data()) : nullptr);
                    int64_t wrong = 0;
                    for (int64_t q = 0; q < slots; ++q) {
                        for (int64_t r = 0; r < n; ++r) {
                            int64_t exact = 0;
                            for (int64_t k = 0; k < d; ++k)
                                exact += digit_at(digits, bits, at(q, k)) * int64_t(points.v[size_t(r * d + k)]);
                            for (int64_t k = dp; k < dq; ++k)
                                exact += digit_at(digits, bits, at(q, k)) * int64_t(tail.v[size_t(r * kTail + k - dp)]);
                            wrong += S[size_t(q * lds + r)] != double(exact);
                        }
                        for (int64_t r = n; r < lds; ++r) wrong += S[size_t(q * lds + r)] != -12345.0;
                    }
                    CAPTURE(group);
                    CAPTURE(tailed);
                    CHECK(wrong == 0);
                }
        }
    }
}

TEST_CASE("second product: exact integers, scaled once") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const IntegerProducts& products = *table->integers;
        const IntegerLayout& layout = products.layout;
        const int bits = layout.digit_bits;
        for (const auto& [R, d] : {std::pair<int, int>{1, 1}, {5, 70}, {24, 129}, {256, 64}, {255, 100}})
            for (int parts = 1; parts <= (24 + bits - 1) / bits; ++parts)
                for (int group = 1; group <= layout.sum_group / parts; ++group)
                    for (const bool balanced : {false, true}) {
                        const int groups = group % 3 == 0 ? 1 : 2;
                        const Points points(DType::u8, R, d, uint64_t(R));
                        const int64_t dp = padded(d), slots = groups * group, rows = layout.weight_rows,
                                      padded_rows = (R + rows - 1) / rows * rows;
                        Random random{uint64_t(group * 10 + parts)};
                        std::vector<char> digits = random_digits(slots * parts * padded_rows, bits, random);
                        const auto at = [&](int64_t q, int64_t part, int64_t r) {
                            const int64_t g = q / group, member = q % group;
                            return g * group * parts * padded_rows +
                                   ((r / rows * group + member) * parts + part) * rows + r % rows;
                        };
                        const auto value = [&](int64_t q, int64_t part, int64_t r) {
                            const int64_t digit = digit_at(digits, bits, at(q, part, r));
                            return balanced ? digit : (digit + layout.bias) & ((int64_t(1) << bits) - 1);
                        };
                        std::vector<int32_t> total(size_t(slots * parts), 0);
                        for (int64_t q = 0; q < slots; ++q)
                            for (int64_t part = 0; part < parts; ++part)
                                for (int64_t r = 0; r < padded_rows; ++r) {
                                    if (r >= R) {
                                        const int16_t nothing = balanced ? 0 : int16_t(-layout.bias);
                                        std::memcpy(&digits[size_t(at(q, part, r) * bits / 8)], &nothing,
                                                    size_t(bits / 8));
                                    }
                                    total[size_t(q * parts + part)] += int32_t(value(q, part, r));
                                }
                        std::vector<uint8_t> active(size_t(groups), 1);
                        active.back() = groups == 1;
                        std::vector<float> rescale(size_t(slots), 0.5f), quantum(size_t(slots), 0.25f);
                        std::vector<float> A(size_t(slots * dp), 3.0f);
                        WeightDigits w{balanced,      groups,       group,          parts,         digits.data(),
                                       active.data(), total.data(), rescale.data(), quantum.data()};
                        products.sum(reinterpret_cast<const uint8_t*>(points.stored.data()), d, R, d, w, A.data(), dp,
                                     nullptr);
                        double worst = 0;
                        for (int64_t q = 0; q < slots; ++q)
                            for (int64_t slot = 0; slot < dp; ++slot) {
                                const int64_t c = slot / kPad * kPad + layout.column_of_slot[slot % kPad];
                                if (c >= d) continue;
                                double exact = 3;
                                if (active[size_t(q / group)]) {
                                    double sum = 0;
                                    for (int64_t part = 0; part < parts; ++part) {
                                        int64_t whole =
                                            0;  // each part is an int32 that is exact; parts join in float32
                                        for (int64_t r = 0; r < R; ++r)
                                            whole += value(q, part, r) * int64_t(points.v[size_t(r * d + c)]);
                                        REQUIRE(whole == int64_t(int32_t(whole)));
                                        sum = sum * double(int64_t(1) << bits) + double(whole);
                                    }
                                    exact = 1.5 + 0.25 * sum;
                                }
                                const double off = std::fabs(double(A[size_t(q * dp + slot)]) - exact);
                                worst = std::max(worst, off / std::max(1.0, std::fabs(exact)));
                            }
                        CAPTURE(parts);
                        CAPTURE(group);
                        CAPTURE(balanced);
                        CHECK(worst <= 4 * 0x1p-24);
                    }
    }
}

TEST_CASE("digits make up the number they came from") {
    Random random(3);
    const int64_t d = 300, dp = padded(d);
    std::vector<double> x(static_cast<size_t>(d));
    for (double& value : x) value = 1000 * random.normal();
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const int bits = table->integers->layout.digit_bits;
        for (int parts = 1; parts <= 32 / bits; ++parts)
            for (const bool stochastic : {false, true}) {
                std::vector<char> digits(size_t(16 * dp * bits / 8), 77);  // two groups of 8 vectors
                std::vector<int64_t> total(16, 5);
                std::vector<float> lost(size_t(d), 1e9f);
                const double step = 7000 / (largest_balanced(bits, parts) - 1);
                const DigitRounding how{step, stochastic ? dithers() : nullptr, parts, 6, lost.data()};
                const double residual = table->integers->place(x.data(), d, how, {digits.data(), total.data(), 8, dp});
                const auto at = [&](int part, int64_t k) {
                    const int64_t v = 6 + part;
                    return digit_at(digits, bits, v / 8 * 8 * dp + k / kPad * kPad * 8 + v % 8 * kPad + k % kPad);
                };
                double worst = 0, square = 0, worst_lost = 0;
                for (int64_t k = 0; k < d; ++k) {
                    double sum = 0;
                    for (int part = 0; part < parts; ++part)
                        sum = sum * double(int64_t(1) << bits) + double(at(part, k));
                    const double off = x[size_t(k)] - sum * step;
                    worst = std::max(worst, std::fabs(off) / step);
                    worst_lost = std::max(worst_lost, std::fabs(off - double(lost[size_t(k)])) / step);
                    square += off * off;
                }
                int64_t wrong = 0;
                for (int part = 0; part < parts; ++part) {
                    int64_t sum = 5;  // to which digits are added
                    for (int64_t k = 0; k < d; ++k) sum += at(part, k);
                    for (int64_t k = d; k < dp; ++k) wrong += at(part, k) != 0;
                    wrong += total[size_t(6 + part)] != sum;
                }
                CHECK(wrong == 0);
                CHECK(total[size_t(6 + parts)] == 5);
                CHECK(worst <= (stochastic ? 1.0 : 0.5) + 1e-6);
                CHECK(worst_lost <= 1e-6);
                CHECK(std::sqrt(square) == doctest::Approx(residual).epsilon(1e-6));
            }
    }
}
