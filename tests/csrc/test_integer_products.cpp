// The integer products of every instruction set, bit for bit against plain loops, VNNI's also where it does not run.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../csrc/cpu/products/digits.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

int64_t digit_at(const std::vector<char>& digits, int bits, int64_t i) {
    if (bits == 8) return reinterpret_cast<const int8_t*>(digits.data())[i];
    return reinterpret_cast<const int16_t*>(digits.data())[i];
}

// Where the digit of column k of vector q of a group lies.
int64_t place_in_group(const IntegerLayout& layout, int64_t group, int64_t q, int64_t k) {
    const int64_t together = layout.columns_together, of_block = k % kPad;
    return k / kPad * kPad * group + of_block / together * together * group + q * together + of_block % together;
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
    for (const NamedProducts& named : integer_products()) {
        CAPTURE(named.name);
        const IntegerProducts& products = *named.products;
        const int bits = products.layout.digit_bits;
        for (const auto& [n, d] :
             {std::pair<int, int>{1, 1}, {5, 63}, {7, 65}, {25, 300}, {3, 5000}, {2, 9000}, {3, 33000}}) {
            const Points points(DType::u8, n, d, uint64_t(d));
            for (int halves = 0; halves <= 2; ++halves)  // rows that go on in other places
                for (int group = 1; group <= products.layout.dot_group; ++group) {
                    if (d > 9000 && group > 5) continue;
                    const int groups = 2;
                    const Points tails[2] = {{DType::u8, n, kTail, 77}, {DType::u8, n, kTail, 78}};
                    RowTail tail;
                    for (int h = 0; h < halves; ++h)
                        tail.half[h] = reinterpret_cast<const uint8_t*>(tails[h].stored.data());
                    const int64_t dp = padded(d), dq = dp + tail.columns(), slots = groups * group, lds = n + 3;
                    Random random{uint64_t(group)};
                    std::vector<char> digits = random_digits(slots * dq, bits, random);
                    std::vector<int64_t> total(size_t(slots), 0);
                    const auto at = [&](int64_t q, int64_t k) {
                        return q / group * group * dq + place_in_group(products.layout, group, q % group, k);
                    };
                    for (int64_t q = 0; q < slots; ++q)
                        for (int64_t k = 0; k < dq; ++k) {
                            if (k >= d && k < dp)
                                std::memset(&digits[size_t(at(q, k) * bits / 8)], 0, size_t(bits / 8));
                            total[size_t(q)] += digit_at(digits, bits, at(q, k));
                        }
                    std::vector<double> S(size_t(slots * lds), -12345.0);
                    products.dot(reinterpret_cast<const uint8_t*>(points.stored.data()), d, tail, n,
                                 {groups, group, dq, digits.data(), total.data()}, d, S.data(), lds,
                                 halves > 0 ? reinterpret_cast<const uint8_t*>(points.stored.data()) : nullptr);
                    int64_t wrong = 0;
                    for (int64_t q = 0; q < slots; ++q) {
                        for (int64_t r = 0; r < n; ++r) {
                            int64_t exact = 0;
                            for (int64_t k = 0; k < d; ++k)
                                exact += digit_at(digits, bits, at(q, k)) * int64_t(points.v[size_t(r * d + k)]);
                            for (int64_t k = dp; k < dq; ++k)
                                exact += digit_at(digits, bits, at(q, k)) *
                                         int64_t(tails[(k - dp) / kTail].v[size_t(r * kTail + (k - dp) % kTail)]);
                            wrong += S[size_t(q * lds + r)] != double(exact);
                        }
                        for (int64_t r = n; r < lds; ++r) wrong += S[size_t(q * lds + r)] != -12345.0;
                    }
                    CAPTURE(group);
                    CAPTURE(halves);
                    CHECK(wrong == 0);
                }
        }
    }
}

TEST_CASE("first product of listed rows: exact, whichever rows and however many") {
    for (const NamedProducts& named : integer_products()) {
        if (!named.products->dot_listed) continue;
        CAPTURE(named.name);
        const IntegerProducts& products = *named.products;
        const int bits = products.layout.digit_bits;
        for (const auto& [n, d] : {std::pair<int, int>{1, 1}, {5, 63}, {19, 65}, {40, 300}, {3, 5000}, {11, 2048}}) {
            const Points points(DType::u8, n, d, uint64_t(d));
            const int64_t dp = padded(d), group = 3;  // digits of three vectors lie between each other
            Random random{uint64_t(n)};
            std::vector<char> digits = random_digits(group * dp, bits, random);
            const auto at = [&](int64_t q, int64_t k) { return place_in_group(products.layout, group, q, k); };
            for (int64_t q = 0; q < group; ++q) {
                int64_t total = 0;
                for (int64_t k = 0; k < dp; ++k) {
                    if (k >= d) std::memset(&digits[size_t(at(q, k) * bits / 8)], 0, size_t(bits / 8));
                    total += digit_at(digits, bits, at(q, k));
                }
                for (int count = 1; count <= n; count += 1 + count / 4) {
                    std::vector<int32_t> list;
                    for (int i = 0; i < count; ++i) list.push_back(int32_t((i * 7 + count) % n));
                    std::vector<double> S(size_t(count + 1), -12345.0);
                    const ListedRows rows{reinterpret_cast<const uint8_t*>(points.stored.data()), d, list.data(),
                                          count};
                    products.dot_listed(rows, digits.data() + at(q, 0) * bits / 8, group * kPad, total, d, S.data());
                    for (int i = 0; i < count; ++i) {
                        double exact = 0;
                        for (int64_t k = 0; k < d; ++k)
                            exact +=
                                points.v[size_t(list[size_t(i)] * d + k)] * double(digit_at(digits, bits, at(q, k)));
                        CHECK(S[size_t(i)] == exact);
                    }
                    CHECK(S[size_t(count)] == -12345.0);
                }
            }
        }
    }
}

TEST_CASE("bounds by coordinates: the nearest row, and the rows that are left, in order") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const IntegerProducts& products = *table->integers;
        const int bits = products.layout.digit_bits, parts = products.layout.digits(16), unit = 32 / bits;
        const int64_t lanes = products.layout.side_by_side;
        for (const int R : {1, 4, 23, 90})
            for (const int64_t halves : {1, 2})
                for (const int groups : {1, 2, 3}) {
                    const int64_t columns = halves * kTail, slots = groups * lanes;
                    Random random{uint64_t(R + groups)};
                    const Points first(DType::u8, R, kTail, 5), second(DType::u8, R, kTail, 6);
                    std::vector<char> digits = random_digits(slots * columns * parts, bits, random);
                    const auto value = [&](int64_t q, int64_t j, int part) {
                        const int64_t g = q / lanes, lane = q % lanes;
                        const int64_t first = ((g * columns + j) / unit * parts + part) * lanes * unit;
                        const int64_t at =
                            products.layout.lane_pairs ? lane * unit + j % unit : j % unit * lanes + lane;
                        return digit_at(digits, bits, first + at);
                    };
                    std::vector<int32_t> start(size_t(slots * parts), 0);
                    std::vector<float> scale, beside, along, least, outside, rounded, half;
                    for (int64_t q = 0; q < slots; ++q) {
                        for (int part = 0; part < parts; ++part)
                            for (int64_t j = 0; j < columns; ++j)
                                start[size_t((q / lanes * parts + part) * lanes + q % lanes)] -=
                                    int32_t(128 * value(q, j, part));
                        scale.push_back(float(1e-6 * (1 + random.uniform())));
                        beside.push_back(float(random.uniform()));
                        along.push_back(float(random.uniform()));
                        least.push_back(q % 5 == 4 ? std::numeric_limits<float>::infinity()
                                                   : float(20 * random.normal()));
                    }
                    for (int r = 0; r < R; ++r) {
                        outside.push_back(float(20 * random.uniform()));
                        rounded.push_back(float(20 * random.uniform()));
                        half.push_back(float(20 * random.uniform()));
                    }
                    const auto bytes = [](const Points& p) {
                        return reinterpret_cast<const uint8_t*>(p.stored.data());
                    };
                    const CoordinateRows rows{{bytes(first), halves > 1 ? bytes(second) : nullptr},
                                              outside.data(),
                                              rounded.data(),
                                              half.data(),
                                              R};
                    const CoordinateQueries queries{{groups, parts, digits.data(), start.data()},
                                                    scale.data(),
                                                    beside.data(),
                                                    along.data(),
                                                    least.data()};
                    // p of one query and row, of so many digits and columns
                    const auto product = [&](int64_t q, int r, int most, int64_t until) {
                        double sum = 0;
                        for (int part = 0; part < parts; ++part) {
                            sum *= double(int64_t(1) << bits);
                            for (int64_t j = 0; j < until && part < most; ++j)
                                sum += double(value(q, j, part)) *
                                       (j < kTail ? first : second).v[size_t(r * kTail + j % kTail)];
                        }
                        return double(scale[size_t(q)]) * sum;
                    };
                    std::vector<float> best(size_t(slots), -1.0f), behind(size_t(slots), -1.0f);
                    std::vector<int32_t> row(size_t(slots), -1), after(size_t(slots), -1), count(size_t(slots), -1),
                        list(size_t(slots * (R + 2)), -7);
                    products.nearest(rows, queries, best.data(), row.data());
                    const int half_way = R / 2;  // the rows from here on by themselves
                    CoordinateRows others = rows;
                    for (const uint8_t*& c : others.coordinates.half) c = c ? c + half_way * kTail : nullptr;
                    others.half += half_way;
                    others.R -= half_way;
                    products.nearest(others, queries, behind.data(), after.data());
                    std::vector<const uint8_t*> bring;
                    for (int r = 0; r < R; ++r) bring.push_back(bytes(first) + r * kTail);
                    products.left(rows, queries, list.data(), R + 2, count.data(), {bring.data(), R, kTail});
                    for (int64_t q = 0; q < slots; ++q) {
                        double most = -1e308, most_behind = -1e308;
                        const auto about = [&](int r) { return product(q, r, 1, kTail) - double(half[size_t(r)]); };
                        for (int r = 0; r < R; ++r) most = std::max(most, about(r));
                        for (int r = half_way; r < R; ++r) most_behind = std::max(most_behind, about(r));
                        CHECK(about(row[size_t(q)]) >= most - 1e-3);
                        CHECK(about(half_way + after[size_t(q)]) >= most_behind - 1e-3);
                        CHECK(std::fabs(double(best[size_t(q)]) - double(behind[size_t(q)]) - (most - most_behind)) <
                              1e-3);
                        std::vector<uint8_t> in(size_t(R), 0);
                        REQUIRE(count[size_t(q)] >= 0);
                        REQUIRE(count[size_t(q)] <= R);
                        for (int i = 0; i < count[size_t(q)]; ++i) {
                            const int32_t r = list[size_t(q * (R + 2) + i)];
                            REQUIRE(r >= 0);
                            REQUIRE(r < R);
                            if (i > 0) CHECK(r > list[size_t(q * (R + 2) + i - 1)]);
                            in[size_t(r)] = 1;
                        }
                        for (int r = 0; r < R; ++r) {
                            const double p = product(q, r, parts, columns);
                            const double upper = p + double(outside[size_t(r)]) * double(beside[size_t(q)]) +
                                                 double(rounded[size_t(r)]) * double(along[size_t(q)]) -
                                                 double(half[size_t(r)]);
                            if (std::fabs(upper - double(least[size_t(q)])) > 1e-4 * (40 + std::fabs(p)))
                                CHECK(bool(in[size_t(r)]) == (upper > double(least[size_t(q)])));
                        }
                    }
                }
    }
}

TEST_CASE("second product: exact integers, scaled once") {
    for (const NamedProducts& named : integer_products()) {
        CAPTURE(named.name);
        const IntegerProducts& products = *named.products;
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
                        products.sum(reinterpret_cast<const uint8_t*>(points.stored.data()), d, R, d, w, A.data(),
                                     layout.sums_in_blocks ? slots * kPad : dp, nullptr);
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
                                const int64_t at = layout.sums_in_blocks
                                                       ? slot / kPad * slots * kPad + q * kPad + slot % kPad
                                                       : q * dp + slot;
                                const double off = std::fabs(double(A[size_t(at)]) - exact);
                                worst = std::max(worst, off / std::max(1.0, std::fabs(exact)));
                            }
                        CAPTURE(parts);
                        CAPTURE(group);
                        CAPTURE(balanced);
                        CHECK(worst <= 4 * 0x1p-24);
                    }
    }
}

namespace {

// Random unsigned digits of weights, the last of more groups than one taking nothing, and where they are summed.
struct RandomSums {
    RandomSums(const IntegerLayout& layout, int R, int64_t d, int parts, int group, int groups)
        : random_(uint64_t(100 * group + parts)),
          digits_(random_digits(groups * group * parts * whole(R, layout.weight_rows), layout.digit_bits, random_)),
          active_(size_t(groups), 1),
          total_(size_t(groups * group * parts), 0),
          rescale_(size_t(groups * group), 0.5f),
          quantum_(size_t(groups * group), 0.25f),
          lda_(layout.sums_in_blocks ? groups * group * kPad : padded(d)),
          A_(size_t(groups * group * padded(d)), 3.0f) {
        active_.back() = groups == 1;
        w_ = {false,          groups,        group,           parts,          digits_.data(),
              active_.data(), total_.data(), rescale_.data(), quantum_.data()};
    }
    WeightSums view() { return {w_, A_.data(), lda_}; }
    const std::vector<float>& sums() const { return A_; }

  private:
    static int64_t whole(int64_t R, int64_t rows) { return (R + rows - 1) / rows * rows; }

    Random random_;
    std::vector<char> digits_;
    std::vector<uint8_t> active_;
    std::vector<int32_t> total_;
    std::vector<float> rescale_, quantum_;
    int64_t lda_;
    std::vector<float> A_;
    WeightDigits w_{};
};

}  // namespace

TEST_CASE("second product of two kinds of weights at once: bit by bit what one after the other gives") {
    int sets = 0;
    for (const NamedProducts& named : integer_products()) {
        const IntegerProducts& products = *named.products;
        if (!products.sum_both) continue;
        ++sets;
        CAPTURE(named.name);
        const IntegerLayout& layout = products.layout;
        for (const auto& [R, d] : {std::pair<int, int>{1, 1}, {64, 70}, {193, 129}, {256, 64}})
            for (const auto& [few, more] : {std::pair<int, int>{1, 2}, {1, 3}, {2, 3}})
                for (const int of_coarser : {1, layout.sum_group / 2 / few, layout.sum_group / few})
                    for (const int of_finer : {1, 3, layout.sum_group / more}) {
                        const Points points(DType::u8, R, d, uint64_t(R));
                        const auto* X = reinterpret_cast<const uint8_t*>(points.stored.data());
                        const auto coarser = [&, few = few] { return RandomSums(layout, R, d, few, of_coarser, 3); };
                        const auto finer = [&, more = more] { return RandomSums(layout, R, d, more, of_finer, 1); };
                        RandomSums one[] = {coarser(), finer()}, both[] = {coarser(), finer()};
                        for (RandomSums& kind : one) {
                            const WeightSums of = kind.view();
                            products.sum(X, d, R, d, of.w, of.A, of.lda, nullptr);
                        }
                        products.sum_both(X, d, R, d, both[0].view(), both[1].view());
                        CHECK(one[0].sums() == both[0].sums());
                        CHECK(one[1].sums() == both[1].sums());
                        CHECK(one[1].sums()[0] != 3.0f);
                    }
    }
    if (sets == 0) MESSAGE("no instruction set of this processor lays rows out once for two kinds of weights");
}

TEST_CASE("weights: digits and the digit of their rest make up what they came from, on average without an error") {
    Random random(8);
    const int64_t R = 203;
    std::vector<double> p(static_cast<size_t>(R));
    std::vector<float> size(static_cast<size_t>(R));
    for (double& value : p) value = std::pow(random.uniform(), 12);  // most of them small
    for (float& s : size) s = float(random.uniform());
    for (const NamedProducts& named : integer_products()) {
        CAPTURE(named.name);
        const IntegerLayout& layout = named.products->layout;
        const int bits = layout.digit_bits;
        for (int parts = 1; parts <= 16 / bits; ++parts) {
            CAPTURE(parts);
            const int64_t rows = layout.weight_rows, room = (R + rows - 1) / rows * rows;
            std::vector<double> total(size_t(R), 0.0);  // of what is lost, in units
            double variance = 0, square = 0;
            constexpr int kTrials = 400;
            double unit = 0;
            for (int trial = 0; trial < kTrials; ++trial) {
                std::vector<char> digits(size_t(room * parts * bits / 8)), rest(size_t(room * bits / 8), 55);
                int32_t sums[3] = {}, rest_sum = 0;
                WeightPlace to{};
                to.units = largest_unsigned(bits, parts);
                to.up = dithers() + 9 * trial;
                to.parts = parts;
                to.bias = layout.bias;
                to.step = parts * rows;
                to.digits = digits.data();
                to.total = sums;
                to.rest = rest.data();
                to.rest_step = rows;
                to.rest_total = &rest_sum;
                to.rest_units = largest_balanced(bits, 1);
                to.rest_up = dithers() + (9 * trial + 2000) % kDithers;
                to.size = size.data();
                const RoundedWeights found = named.products->round(p.data(), int(R), false, to);
                unit = double(found.quantum) / to.rest_units;
                double sum = 0;
                int64_t rests = 0;
                for (int64_t r = 0; r < room; ++r) {
                    double whole = 0;
                    for (int part = 0; part < parts; ++part) {
                        const int64_t digit = digit_at(digits, bits, r / rows * to.step + part * rows + r % rows);
                        whole = whole * double(int64_t(1) << bits) +
                                double((digit + layout.bias) & ((int64_t(1) << bits) - 1));
                    }
                    const int64_t more = digit_at(rest, bits, r);
                    rests += more;
                    if (r >= R) {
                        CHECK(more == 0);
                        continue;
                    }
                    sum += whole;
                    const double lost = p[size_t(r)] - double(found.quantum) * whole;
                    square += double(size[size_t(r)]) * std::pow(lost / double(found.quantum), 2) / kTrials;
                    const double off = (lost - unit * double(more)) / unit;
                    CHECK(std::fabs(off) < 1.01 + 1e-3 * to.rest_units);  // float32, of numbers of 2^16 and more
                    total[size_t(r)] += off;
                }
                CHECK(sum == found.total);
                CHECK(rests == rest_sum);
                variance += found.sized / kTrials;
            }
            CHECK(variance == doctest::Approx(square).epsilon(0.1));
            double bias = 0;
            for (const double t : total) bias = std::max(bias, std::fabs(t) / kTrials);
            CHECK(bias < 0.12 + 1e-4 * largest_balanced(bits, 1));  // at most half a unit each: 0.5 / 20 a deviation
        }
    }
}

TEST_CASE("digits make up the number they came from") {
    Random random(3);
    const int64_t d = 300, dp = padded(d);
    std::vector<double> x(static_cast<size_t>(d));
    for (double& value : x) value = 1000 * random.normal();
    for (const NamedProducts& named : integer_products()) {
        CAPTURE(named.name);
        const int bits = named.products->layout.digit_bits;
        for (int parts = 1; parts <= 32 / bits; ++parts)
            for (const bool stochastic : {false, true}) {
                std::vector<char> digits(size_t(16 * dp * bits / 8), 77);  // two groups of 8 vectors
                std::vector<int64_t> total(16, 5);
                std::vector<float> lost(size_t(d), 1e9f);
                const double step = 7000 / (largest_balanced(bits, parts) - 1);
                const DigitRounding how{step, stochastic ? dithers() : nullptr, parts, 6, lost.data()};
                const double residual = named.products->place(x.data(), d, how, {digits.data(), total.data(), 8, dp});
                const auto at = [&](int part, int64_t k) {
                    const int64_t v = 6 + part;
                    const IntegerLayout& layout = named.products->layout;
                    return digit_at(digits, bits, v / 8 * 8 * dp + place_in_group(layout, 8, v % 8, k));
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
