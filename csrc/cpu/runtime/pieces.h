// The rows of a pass, cut into the pieces that threads take.
#pragma once

#include "parallel.h"

namespace geodiff {

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
