// The rows that products bring to L2 while they work on others: a row of 3 KiB ends before the processor's own
// prefetcher has got going, and a second product reads a line of each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../vec/constants.h"

namespace {

// Of `groups` groups that take the rows of a tile one after the other, `group`. Each asks for its share of the tile at
// `next`. Where there is none, the first one finds rows in memory: it asks for those that it takes next.
struct RowsAhead {
    const uint8_t* next;
    int group, groups;

    // f(first row, how many, whether to bring others meanwhile, these): the R rows of a tile at X, SIZE at a time, then
    // single ones. Both in the middle are constants of the compiler.
    template <int SIZE, class F>
    GEODIFF_INLINE void each_block(const uint8_t* X, int64_t ldx, int R, F&& f) const {
        int r = 0;
        for (; r + SIZE <= R; r += SIZE) {
            if (const uint8_t* ahead = beside(X, ldx, r, SIZE))
                f(r, Constant<SIZE>(), std::true_type(), ahead);
            else
                f(r, Constant<SIZE>(), std::false_type(), X);
        }
        for (; r < R; ++r) f(r, Constant<1>(), std::false_type(), X);
    }

    // What to bring while rows r to r + size of X are worked on, as many; null: nothing.
    GEODIFF_INLINE const uint8_t* beside(const uint8_t* X, int64_t ldx, int r, int size) const {
        if (!next) return group == 0 ? X + (r + size) * ldx : nullptr;
        return r / size % groups == group ? next + r * ldx : nullptr;
    }
};

// A line of each row of the next tile, dealt out to the blocks of a second product: all of them at once, while rows are
// interleaved, would wait for each other.
class LinesAhead {
  public:
    // R rows from `first` (null: none) on, for so many blocks of at least R / (2 blocks) steps.
    LinesAhead(const uint8_t* first, int64_t ldx, int R, int blocks)
        : at_(first), ldx_(ldx), left_(first && blocks > 0 ? R : 0) {
        if (left_ > 0) of_block_ = (R + blocks - 1) / blocks;
    }

    GEODIFF_INLINE void begin_block() {
        now_ = std::min(of_block_, left_);
        left_ -= now_;
    }
    GEODIFF_INLINE void step() {
        if (now_ <= 0) return;
        __builtin_prefetch(at_, 0, 2);
        if (now_ > 1) __builtin_prefetch(at_ + ldx_, 0, 2);
        at_ += std::min(now_, 2) * ldx_;
        now_ -= 2;
    }

    // The same where a block has so few steps that two lines each would not be all.
    GEODIFF_INLINE void begin_block_of(int steps) {
        begin_block();
        of_step_ = (now_ + steps - 1) / steps;
    }
    GEODIFF_INLINE void step_of_block() {
        const int lines = std::min(of_step_, now_);
        now_ -= lines;
        for (int line = 0; line < lines; ++line, at_ += ldx_) __builtin_prefetch(at_, 0, 2);
    }

  private:
    const uint8_t* at_;
    int64_t ldx_;
    int left_, of_block_ = 0, now_ = 0, of_step_ = 0;
};

}  // namespace
