#include "peaks.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "../runtime/buffer.h"
#include "../runtime/parallel.h"

namespace geodiff {
namespace {

constexpr double kSeconds = 0.02;        // of one measurement
constexpr int kRepeats = 9;              // the best counts: others only take time away
constexpr int64_t kBytes = 256LL << 20;  // read at once: more than any cache holds

double seconds_of(int threads, void (*const work)(int, int, void*), void* given) {
    const auto begin = std::chrono::steady_clock::now();
    parallel(threads, [&](int t) { work(t, threads, given); });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Units per second of loop(rounds), which returns the units of its rounds, on every thread at once.
double rate(int64_t (*const loop)(int64_t), int threads) {
    struct Work {
        int64_t (*loop)(int64_t);
        int64_t rounds;
        std::vector<int64_t> units;
    } work{loop, 1 << 10, std::vector<int64_t>(size_t(threads))};
    const auto run = [&] {
        return seconds_of(
            threads,
            [](int t, int, void* given) {
                Work& mine = *static_cast<Work*>(given);
                mine.units[size_t(t)] = mine.loop(mine.rounds);
            },
            &work);
    };
    double seconds = run();
    for (; seconds < kSeconds; seconds = run()) work.rounds *= 2;
    for (int i = 1; i < kRepeats; ++i) seconds = std::min(seconds, run());
    return double(std::accumulate(work.units.begin(), work.units.end(), int64_t(0))) / seconds;
}

constexpr int64_t kLine = 8;  // words

// A line at a time, others on their way: without the prefetch one core of a Zen 4 gets three quarters of that.
uint64_t read_in_order(const uint64_t* words, Range range) {
    constexpr int64_t kAhead = 256;
    uint64_t sums[kLine] = {};
    for (int64_t w = range.begin; w + kLine <= range.end; w += kLine) {
        __builtin_prefetch(words + w + kAhead);
        for (int64_t i = 0; i < kLine; ++i) sums[i] += words[w + i];
    }
    return std::accumulate(sums, sums + kLine, uint64_t(0));
}

// A line of each of 16 rows after the other, as products do: the processor's own prefetcher follows all of them at
// once, which on an Emerald Rapids takes a sixth less time. The last rows, 48 KiB at most of a range, are left out.
uint64_t read_rows(const uint64_t* words, Range range) {
    constexpr int64_t kRows = 16, kRow = 3072 / 8;
    uint64_t sums[kLine] = {};
    for (int64_t first = range.begin; first + kRows * kRow <= range.end; first += kRows * kRow)
        for (int64_t w = first; w < first + kRow; w += kLine)
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t i = 0; i < kLine; ++i) sums[i] += words[w + r * kRow + i];
    return std::accumulate(sums, sums + kLine, uint64_t(0));
}

double read_rate(int threads, uint64_t (*const read)(const uint64_t*, Range)) {
    constexpr int64_t kWords = kBytes / 8;
    struct Work {
        uint64_t (*read)(const uint64_t*, Range);
        Buffer<uint64_t> words{kWords, true};
        std::vector<uint64_t> sums;
    } work;
    work.read = read;
    work.sums.resize(size_t(threads));
    double seconds = 1e300;
    for (int i = 0; i < kRepeats; ++i)
        seconds = std::min(seconds, seconds_of(
                                        threads,
                                        [](int t, int of, void* given) {
                                            Work& all = *static_cast<Work*>(given);
                                            const Range mine = share(kWords, 8, t, of);
                                            all.sums[size_t(t)] = all.read(all.words.data(), mine);
                                        },
                                        &work));
    return double(kBytes) / seconds;
}

}  // namespace

Peaks peaks(const Table& kernels, int threads) {
    return {rate(kernels.peak, threads), kernels.integers ? rate(kernels.integers_for(kDotQueries)->peak, threads) : 0,
            std::max(read_rate(threads, read_in_order), read_rate(threads, read_rows))};
}

}  // namespace geodiff
