// Fork-join. On PyTorch's OpenMP threads where it has them: they spin for milliseconds after each of its operations,
// and work for the same runtime finds them awake, while threads of our own would have to share the cores with them
// (docs/packaging.md has the measurement). Otherwise plain threads, one fork-join each.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "interrupt.h"
#include "openmp.h"

namespace geodiff {

// Calls body(t) for t = 0..threads-1, each once, in any order; the first exception is rethrown here.
template <class Body>
void parallel(int threads, Body&& body) {
    if (threads <= 1) {
        body(0);
        return;
    }
    std::exception_ptr failure;
    std::mutex guard;
    Call* const call = Call::current();
    auto run = [&](int t) {
        const Call::Helper helper(call);
        try {
            body(t);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!failure) failure = std::current_exception();
        }
    };
    if (const OpenMP* runtime = openmp()) {
        // It may give fewer threads than asked for: the shares are dealt out, so the answer stays the same.
        auto team = [&] {
            for (int t = runtime->thread(); t < threads; t += runtime->threads()) run(t);
        };
        using Team = decltype(team);
        runtime->run([](void* given) { (*static_cast<Team*>(given))(); }, &team, unsigned(threads), 0);
    } else {
        std::vector<std::thread> workers;
        workers.reserve(size_t(threads) - 1);
        int started = 0;
        try {
            for (; started < threads - 1; ++started) workers.emplace_back(run, started);
        } catch (...) {  // the system gives no more threads: the shares that have none are done here
        }
        for (int t = started; t < threads; ++t) run(t);
        for (std::thread& worker : workers) worker.join();
    }
    if (failure) std::rethrow_exception(failure);
}

struct Range {
    int64_t begin, end;
};

// Share t of `threads` equal shares of [0, n), cut at multiples of `unit`: the same for the same thread count.
inline Range share(int64_t n, int64_t unit, int t, int threads) {
    const int64_t units = (n + unit - 1) / unit;
    const int64_t begin = units * t / threads * unit, end = units * (t + 1) / threads * unit;
    return {begin < n ? begin : n, end < n ? end : n};
}

// Threads worth starting for so many multiply-adds: a fork and a join cost as much as 2^17 of them.
inline int threads_for(int64_t work, int most) { return int(std::clamp<int64_t>(work >> 17, 1, most)); }

// Calls body(begin, end) for shares of [0, n), on as many threads as `work` multiply-adds are worth.
template <class Body>
void in_shares(int64_t n, int64_t work, int most, Body&& body) {
    const int threads = int(std::min<int64_t>(threads_for(work, most), std::max<int64_t>(n, 1)));
    parallel(threads, [&](int t) {
        const Range mine = share(n, 1, t, threads);
        body(mine.begin, mine.end);
    });
}

// Calls body(i) for i in [0, n), whoever is free taking the next: for items of unequal size.
template <class Body>
void one_by_one(int64_t n, int threads, Body&& body) {
    std::atomic<int64_t> next{0};
    parallel(int(std::min<int64_t>(threads, std::max<int64_t>(n, 1))), [&](int) {
        for (int64_t i = next++; i < n; i = next++) {
            interruption_point();
            body(i);
        }
    });
}

}  // namespace geodiff
