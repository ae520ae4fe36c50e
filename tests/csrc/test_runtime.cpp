// Threads, pieces of the rows, scratch memory, and the lists that passes keep.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <stdexcept>

#include "../../csrc/cpu/passes/candidates.h"
#include "../../csrc/cpu/passes/tiles.h"
#include "../../csrc/cpu/passes/top.h"
#include "../../csrc/cpu/runtime/buffer.h"
#include "../../csrc/cpu/runtime/pieces.h"
#include "../../csrc/cpu/runtime/read_ahead.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

TEST_CASE("pieces cover every row once, in order, cut at the unit") {
    for (const int64_t n : {1, 5, 24, 1000, 50'000})
        for (const int64_t unit : {1, 24, 128})
            for (const int threads : {1, 2, 7})
                for (const bool balanced : {false, true}) {
                    const Pieces pieces(n, unit, threads, balanced);
                    int64_t next = 0;
                    for (int p = 0; p < pieces.count(); ++p) {
                        CHECK(pieces[p].begin == next);
                        CHECK((pieces[p].begin % unit == 0 || pieces[p].begin == n));
                        next = pieces[p].end;
                    }
                    CHECK(next == n);
                }
}

TEST_CASE("tiles come in row order within a share, and shares in the order of the rows") {
    const std::vector<uint8_t> bytes(1000 * 3, 0);
    const Rows rows{bytes.data(), DType::u8, 1000, 3};
    const Pieces pieces(1000, 16, 3, true);
    const auto shares = over_tiles(
        rows, pieces, 16, [] { return 0; }, [] { return std::vector<int64_t>(); },
        [&](int, std::vector<int64_t>& mine, const Tile& t) {
            for (int r = 0; r < t.R; ++r) mine.push_back(t.first + r);
            CHECK((t.ahead == nullptr || t.ahead == rows.row(t.first + 16)));
        });
    std::vector<int64_t> all;
    for (const auto& share : shares) all.insert(all.end(), share.begin(), share.end());
    CHECK(int64_t(all.size()) == 1000);
    CHECK(std::is_sorted(all.begin(), all.end()));
}

TEST_CASE("joined sums do not depend on how the rows were shared") {
    const double logits[] = {-3, 500, 499, -1e4, 20, 498.5};
    Online whole;
    std::vector<Online> parts(3);
    for (int i = 0; i < 6; ++i)
        for (Online* o : {&whole, &parts[size_t(i % 3)]}) {
            const double m = std::max(o->max, logits[i]), keep = std::exp(o->max - m), p = std::exp(logits[i] - m);
            o->sum_l = (o->sum_l + (o->sum > 0 ? (o->max - m) * o->sum : 0)) * keep + p * (logits[i] - m);
            o->sum = o->sum * keep + p;
            o->sum_2 = o->sum_2 * keep * keep + p * p;
            o->max = m;
        }
    parts.emplace_back();  // one that saw nothing
    int called = 0;
    const Online joined =
        join(parts, [](const Online& o) -> const Online& { return o; }, [&](const Online&, double) { ++called; });
    CHECK(called == 3);
    CHECK(joined.max == whole.max);
    CHECK(joined.sum == doctest::Approx(whole.sum));
    CHECK(joined.sum_l == doctest::Approx(whole.sum_l));
    CHECK(joined.sum_2 == doctest::Approx(whole.sum_2));
}

TEST_CASE("every share of the work is done once, and the first exception comes back") {
    std::atomic<int> done{0};
    one_by_one(1000, 4, [&](int64_t) { ++done; });
    CHECK(done == 1000);
    std::atomic<int64_t> covered{0};
    in_shares(12345, int64_t(1) << 30, 3, [&](int64_t begin, int64_t end) { covered += end - begin; });
    CHECK(covered == 12345);
    CHECK(threads_for(1, 8) == 1);
    CHECK(threads_for(int64_t(1) << 40, 8) == 8);
    CHECK_THROWS_AS(parallel(3,
                             [](int t) {
                                 if (t == 1) throw std::runtime_error("here");
                             }),
                    std::runtime_error);
}

TEST_CASE("scratch is aligned, zeroed where asked, and kept for the next call") {
    for (const int64_t bytes : {1, 100, 40'000, 5'000'000}) {
        Buffer<char> buffer(bytes, true);
        CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % 64 == 0);
        CHECK(std::all_of(buffer.data(), buffer.data() + bytes, [](char c) { return c == 0; }));
        std::fill(buffer.data(), buffer.data() + bytes, char(1));
    }
    Buffer<char> again(5'000'000, true);
    CHECK(again[4'999'999] == 0);
}

TEST_CASE("the k largest, ties to the lower row") {
    Top top(3), other(3);
    for (const int64_t row : {5, 1, 9}) top.offer(2.0, row);
    for (const int64_t row : {3, 4}) other.offer(2.0, row);
    other.offer(7.0, 8);
    top.merge(other);
    int64_t index[3];
    double weight[3];
    top.write(7.0, 1.0, index, weight);
    CHECK(std::vector<int64_t>(index, index + 3) == std::vector<int64_t>{8, 1, 3});
    CHECK(weight[0] == doctest::Approx(1));
    Top few(3);
    few.offer(0.0, 2);
    few.write(0.0, 1.0, index, weight);
    CHECK(index[1] == -1);
    CHECK(weight[2] == 0);
}

TEST_CASE("rows that are offered together are kept as one by one") {
    Random random(5);
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int R : {1, 31, 32, 33, 200}) {
            std::vector<double> logits;
            for (int i = 0; i < R; ++i) logits.push_back(std::floor(12 * random.normal()));
            logits[size_t(R / 2)] = -std::numeric_limits<double>::infinity();
            Top together(7), single(7);
            for (int tile = 0; tile < 3; ++tile) {
                together.offer(table->vectors, logits.data(), tile * R, R);
                for (int i = 0; i < R; ++i) single.offer(logits[size_t(i)], tile * R + i);
            }
            int64_t index[2][7];
            double weight[2][7];
            together.write(0, 1, index[0], weight[0]);
            single.write(0, 1, index[1], weight[1]);
            for (int i = 0; i < 7; ++i) CHECK(index[0][i] == index[1][i]);
        }
    }
}

TEST_CASE("the k largest of several pieces are the same, whatever each knew of those before it") {
    Random random(4);
    for (int trial = 0; trial < 200; ++trial) {
        constexpr int kPieces = 4, kRows = 60;
        std::vector<double> logits;
        for (int i = 0; i < kPieces * kRows; ++i) logits.push_back(std::floor(12 * random.normal()));  // many ties
        const int64_t k = 1 + trial % 17;
        const auto found = [&](const std::vector<int>& order, bool knowing) {
            std::vector<Top> pieces(kPieces, Top(k));
            Top::Entry least = Top::kNothing;
            for (const int piece : order)
                for (int r = piece * kRows; r < (piece + 1) * kRows; r += 20) {
                    Top& top = pieces[size_t(piece)];
                    if (knowing) top.rise(least);
                    for (int i = r; i < r + 20; ++i) top.offer(logits[size_t(i)], i);
                    least = top.least();
                }
            Top all(k);
            for (const Top& piece : pieces) all.merge(piece);
            std::vector<int64_t> rows;
            all.rows(rows);
            std::sort(rows.begin(), rows.end());
            return rows;
        };
        const std::vector<int64_t> expected = found({0, 1, 2, 3}, false);
        CHECK(int64_t(expected.size()) == k);
        for (const auto& order : {std::vector<int>{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}})
            CHECK(found(order, true) == expected);
    }
    Top top(2);
    top.offer(5, 1), top.offer(4, 2), top.offer(3, 3);
    top.rise({6, 9});
    top.entries();
    CHECK(top.least().logit == 6);  // what is known of others is not forgotten
}

TEST_CASE("candidates: no row that may matter is lost, and too many are said to be") {
    const double cut = 5;
    std::vector<float> away(4000, 1.0f);
    std::vector<double> logits(4000);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = double(i % 100) / 10;
    Candidates found(*tables().front(), {cut, cut}, 0.05, 0.01), first(*tables().front(), {cut, cut}, 0.05, 0.01);
    for (int64_t i = 0; i < 400; i += 40) found.offer(logits.data() + i, away.data(), i, 40);
    const Candidates::Ends ends = Candidates::ends({&found, &first});
    CHECK(ends.whole);
    std::vector<Candidate> rows;
    found.collect(ends.least, rows);
    std::set<int64_t> kept;
    for (const Candidate& c : rows) kept.insert(c.row);
    for (int64_t i = 0; i < 400; ++i)
        if (logits[size_t(i)] + 0.06 >= 9.9 - 0.06 - cut) CHECK(kept.count(i) == 1);
    for (const int64_t row : kept) CHECK(logits[size_t(row)] + 0.06 >= 9.9 - 0.06 - cut);
    std::fill(logits.begin(), logits.end(), 1.0);
    Candidates crowded(*tables().front(), {cut, cut}, 0, 0);
    for (int64_t i = 0; i < 4000; i += 40) crowded.offer(logits.data() + i, away.data(), i, 40);
    CHECK_FALSE(Candidates::ends({&crowded}).whole);
}

TEST_CASE("candidates: a row far above all others may come last, in whichever piece") {
    const double cut = 5, high = 100;
    const std::vector<float> away(40, 1.0f);
    std::vector<double> logits(40);
    for (const bool counts : {false, true}) {
        Candidates near(*tables().front(), {cut, cut, 0, counts}, 0, 0), far = near;
        for (int64_t i = 0; i < 8000; i += 40) {
            for (int64_t r = 0; r < 40; ++r) logits[size_t(r)] = 1e-4 * double((i + r) * 17 % 8000);
            if (i == 7960) logits[39] = high;
            (i < 4000 ? far : near).offer(logits.data(), away.data(), i, 40);
        }
        // The others lie within the cut of each other, and more of them than there is room for.
        CHECK_FALSE(Candidates::ends({&far}).whole);
        CHECK(far.given_up() == counts);
        const Candidates::Ends ends = Candidates::ends({&far, &near});
        CHECK(ends.whole == !counts);
        if (counts) continue;
        CHECK(ends.best == high);
        std::vector<Candidate> rows;
        for (const Candidates* part : {&far, &near}) part->collect(ends.least, rows);
        REQUIRE(rows.size() == 1);
        CHECK(rows.front().row == 7999);
    }
}

TEST_CASE("candidates beyond the cut are kept as long as there is room") {
    const double cut = 5;
    std::vector<float> away(6000, 1.0f);
    std::vector<double> logits(6000);
    for (const double step : {0.001, 0.004}) {  // 5,000 and 1,250 rows within the cut
        for (size_t i = 0; i < logits.size(); ++i) logits[i] = -step * double(i * 17 % 6000);
        Candidates found(*tables().front(), {cut, 4 * cut}, 0, 0);
        for (int64_t i = 0; i < 6000; i += 40) found.offer(logits.data() + i, away.data(), i, 40);
        const Candidates::Ends ends = Candidates::ends({&found});
        CHECK(ends.whole == (step == 0.004));
        if (!ends.whole) continue;
        CHECK(ends.width >= cut);
        CHECK(ends.width < 4 * cut);
        CHECK(ends.best == 0);
        std::vector<Candidate> rows;
        found.collect(ends.least, rows);
        CHECK(int64_t(rows.size()) <= kMaxCandidates);
        std::set<int64_t> kept;
        for (const Candidate& c : rows) kept.insert(c.row);
        for (int64_t i = 0; i < 6000; ++i) CHECK((kept.count(i) == 1) == (logits[size_t(i)] >= -ends.width));
    }
}

TEST_CASE("reading ahead changes nothing, wherever it begins and whether or not pages are given back") {
    std::vector<char> bytes(size_t(5 * ReadAhead::kWindow + 123));
    for (size_t i = 0; i < bytes.size(); i += 4096) bytes[i] = char(i / 4096 + 1);
    for (const bool give_back : {false, true})
        for (const size_t begin : {size_t(0), size_t(77)}) {
            ReadAhead reading(bytes.data() + begin, int64_t(bytes.size() - begin), true, give_back);
            for (size_t at = begin; at < bytes.size(); at += 100'000) reading.reached(bytes.data() + at);
        }
    ReadAhead none(nullptr, 0, true);
    none.reached(nullptr);
    bool same = true;
    for (size_t i = 0; i < bytes.size(); i += 4096) same = same && bytes[i] == char(i / 4096 + 1);
    CHECK(same);
}
