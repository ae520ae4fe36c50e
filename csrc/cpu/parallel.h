// Fork-join. With OpenMP where there is one: PyTorch's threads spin for milliseconds after each of its operations, and
// work for the same runtime finds them awake, while threads of our own would have to share the cores with them
// (measured: 13 ms instead of 6 for one query between PyTorch calls). Otherwise plain threads, one fork-join each.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

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
    auto run = [&](int t) {
        try {
            body(t);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!failure) failure = std::current_exception();
        }
    };
#ifdef _OPENMP
    // The runtime may give fewer threads than asked for: the shares are dealt out, so the answer stays the same.
#pragma omp parallel num_threads(threads)
    for (int t = omp_get_thread_num(); t < threads; t += omp_get_num_threads()) run(t);
#else
    std::vector<std::thread> workers;
    workers.reserve(size_t(threads) - 1);
    int started = 0;
    try {
        for (; started < threads - 1; ++started) workers.emplace_back(run, started);
    } catch (...) {  // the system gives no more threads: the shares that have none are done here
    }
    for (int t = started; t < threads; ++t) run(t);
    for (std::thread& worker : workers) worker.join();
#endif
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

// Rows [0, n) cut at multiples of `unit` into pieces, each the work of one thread, with sums of its own: whoever does
// which, the answer depends on the number of threads only. One large piece per thread, and for `balanced` pieces a
// fifth of the rows in small ones for who is done first: cores are not equally fast, least so where others use them
// too.
class Pieces {
  public:
    Pieces(int64_t n, int64_t unit, int threads, bool balanced) : n_(n), unit_(unit), threads_(threads) {
        const int64_t units = (n + unit - 1) / unit;
        if (balanced && threads > 1) small_ = units / (10 * threads);
        large_ = std::min(n, (units - kSmall * threads * small_) * unit);
    }

    int count() const { return small_ > 0 ? (1 + kSmall) * threads_ : threads_; }

    Range operator[](int piece) const {
        if (piece < threads_) return share(large_, unit_, piece, threads_);
        const int64_t begin = large_ + (piece - threads_) * small_ * unit_;
        return {std::min(begin, n_), std::min(begin + small_ * unit_, n_)};
    }

    // Calls body(next) on every thread; next() gives the number of a piece, or -1 when all are taken.
    template <class Body>
    void each(Body&& body) const {
        std::atomic<int> free{threads_};
        parallel(threads_, [&](int t) {
            bool first = true;
            body([&] {
                const int piece = first ? t : free++;
                first = false;
                return piece < count() ? piece : -1;
            });
        });
    }

  private:
    static constexpr int64_t kSmall = 2;  // small pieces per thread
    int64_t n_, unit_, large_ = 0, small_ = 0;
    int threads_;
};

}  // namespace geodiff
