// Products of short rows with queries in lanes, exact on every instruction set.
#include <doctest/doctest.h>

#include <memory>

#include "../../csrc/cpu/products/digits.h"
#include "../../csrc/cpu/products/lane_digits.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

// Integers of so many digits, the extremes of all digits among them.
std::vector<double> random_integers(int64_t count, int bits, int parts, Random& random) {
    std::vector<double> out;
    const double most = largest_balanced(bits, parts);
    double lowest = 0;
    for (int part = 0; part < parts; ++part)
        lowest = lowest * double(int64_t(1) << bits) - double(int64_t(1) << (bits - 1));
    for (int64_t i = 0; i < count; ++i)
        out.push_back(i % 5 == 0 ? lowest : i % 5 == 1 ? most : std::round(most * (2 * random.uniform() - 1)));
    return out;
}

// Rows of bytes that end where their memory does.
std::unique_ptr<uint8_t[]> exactly(const Points& points) {
    std::unique_ptr<uint8_t[]> rows(new uint8_t[points.stored.size()]);
    std::memcpy(rows.get(), points.stored.data(), points.stored.size());
    return rows;
}

}  // namespace

TEST_CASE("products in lanes: exact, for rows of any length and with a half elsewhere, and nothing else is written") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const IntegerLayout& layout = table->integers->layout;
        const int64_t lanes = layout.side_by_side;
        for (const int64_t d : {1, 3, 4, 17, 64, 66, 100, 127, 128, 256})
            for (const int R : {1, 4, 7, 67, 256})
                for (const int64_t count : {int64_t(1), lanes, 3 * lanes - 1})
                    for (int parts = 1; parts <= 32 / layout.digit_bits; ++parts) {
                        const bool halves = d > kTail;
                        const int64_t width = halves ? kTail : d, lds = R + 3;
                        Random random{uint64_t(d * R + count)};
                        const Points points(DType::u8, R, width, 5), others(DType::u8, R, kTail, 6);
                        const auto first = exactly(points), second = exactly(others);
                        const std::vector<double> x = random_integers(count * d, layout.digit_bits, parts, random);
                        LaneDigits digits(*table->integers, count, d, parts);
                        for (int64_t q = 0; q < count; ++q) CHECK(digits.place(q, x.data() + q * d, 1) == 0);
                        const ShortRows rows{{first.get(), halves ? second.get() : nullptr},
                                             width,
                                             halves ? kTail : digits.columns(),
                                             R};
                        std::vector<double> S(size_t(count * digits.pieces() * lds), -12345.0),
                            joined(static_cast<size_t>(R));
                        digits.multiply(rows, S.data(), lds);
                        int64_t wrong = 0;
                        for (int64_t q = 0; q < count; ++q) {
                            const DigitSums sums = digits.sums(S.data(), lds, q, 2);
                            table->join_digits(sums, nullptr, 0, 0, R, joined.data());
                            for (int r = 0; r < R; ++r) {
                                double exact = 0;
                                for (int64_t k = 0; k < d; ++k)
                                    exact += x[size_t(q * d + k)] *
                                             (k < kTail ? points : others).v[size_t(r * width + k % kTail)];
                                wrong += joined[size_t(r)] != 2 * exact;
                            }
                            for (int p = 0; p < digits.pieces(); ++p)
                                for (int64_t r = R; r < lds; ++r) wrong += sums.at[p * lds + r] != -12345.0;
                        }
                        CAPTURE(d);
                        CAPTURE(R);
                        CAPTURE(count);
                        CAPTURE(parts);
                        CHECK(wrong == 0);
                    }
    }
}
