// Local denoisers: squared differences of a query and images at every pixel, and their sums over windows, a band of
// rows after the other, so that what a band needs stays in L1.
#pragma once

#include "../local_table.h"
#include "box.h"
#include "dot.h"

namespace {

using geodiff::LocalQuery;
using geodiff::PlaneShape;
using geodiff::Window;

constexpr int kTogether = 4;  // images that a pixel's sums are taken to registers for,
constexpr int kMostTogether = Shape::accumulators < 24 ? 4 : 8;  // and where little is kept of each of them
constexpr int64_t kBandBytes = 1 << 10;                          // of a plane, in a band
constexpr int kMostLine = 4;  // registers of a row whose windows are summed in registers
// Windows of which no differences are stored, since registers have room for their rows: of up to so many pixels on
// every side of their own, or twice as many behind it, in images whose rows are so many registers.
constexpr int kMostHalf = 3, kSmallLine = 2;
template <class T>
constexpr bool kKeepsRows = kShifts<VecF> && sizeof(T) == sizeof(float);

// Where the arrays lie that images go through, kTogether of them side by side:
//     differences [above + height + below, stride]   zero outside the image, or the other end of it
//     levels                                         of sums over rows
// and for a band of one image
//     columns [band, pitch]                          sums over rows, with a margin before each row that serves the row
//                                                    before it too, unless the image wraps
//     levels                                         of sums over columns
// sums [kTogether, band] over windows; of a tile partial sums, the largest logits before it, and which registers of
// them it has added to [plane / lanes]. What the loops store as bytes could be any number here as far as the compiler
// knows: they copy what they need.
template <class T>
struct Room {
    typedef typename In<T>::Vec Vec;
    static constexpr int64_t kLanes = In<T>::lanes;

    T *differences, *row_levels, *columns, *column_levels, *sums, *partial, *before, *touched;
    int64_t tall, row_level, rows, margin, pitch, length, column_level, band, total;
    int line = 0;  // registers of a row, whose windows are summed in registers; none: by way of columns
    int half = 0;  // of windows of which no differences are stored

    Room(const PlaneShape& s, const Window& w, T* at) {
        const T* const start = at;
        const auto take = [&](int64_t n) {
            T* const here = at;
            at += padded(n);
            return here;
        };
        rows = kBandBytes / int64_t(sizeof(T)) / s.stride;
        if (rows < 1) rows = 1;
        band = rows * s.stride;
        tall = padded((w.above + s.height + w.below) * s.stride);
        row_level = tall * doublings(w.rows());
        margin = w.wraps ? w.left : w.left > w.right ? w.left : w.right;
        margin = (margin + kLanes - 1) / kLanes * kLanes;
        pitch = margin + s.stride + (w.wraps ? (w.right + kLanes - 1) / kLanes * kLanes : 0);
        length = rows * pitch + margin;
        column_level = padded(length);
        differences = take(kMostTogether * tall);
        row_levels = take(kTogether * row_level);
        columns = take(length);
        column_levels = take(doublings(w.columns()) * column_level);
        sums = take(kMostTogether * band);
        partial = take((geodiff::kMean + 2 * s.channels) * s.plane());
        before = take(s.plane());
        touched = take(s.plane() / kLanes);
        total = at - start;
        if (kShifts<Vec> && s.stride <= kMostLine * kLanes && Line<T, 1, false>::holds(w.left, w.right) &&
            (!w.wraps || s.width == s.stride))
            line = int(s.stride / kLanes);
        const int64_t more = w.rows() - 1;
        const bool small = w.columns() - 1 == more && more <= 2 * kMostHalf && w.left == w.above && !w.wraps &&
                           (w.above == 0 || w.below == 0 || w.above == w.below);
        if (kKeepsRows<T> && line == kSmallLine && small && more % 2 == 0) half = int(more / 2);
    }
    static int64_t padded(int64_t n) { return (n + 2 * kLanes + 63) / 64 * 64; }

    // Windows of an image over rows, from its differences.
    Parts<T> over_rows(const PlaneShape& s, const Window& w, int image) const {
        return box_parts(differences + image * tall, tall, s.stride, w.rows(), row_levels + image * row_level);
    }
};

template <class T>
int64_t room_for(const PlaneShape& shape, const Window& window) {
    return Room<T>(shape, window, nullptr).total;
}

// Of COUNT images, at the places from, ..., to - 1 of a plane; those of image g to out + g apart.
template <int COUNT, bool CENTRED, class T>
GEODIFF_BLOCK void squared_differences(const PlaneShape& s, const LocalQuery<T>& query, const T* const* images,
                                       int64_t from, int64_t to, T* out, int64_t apart) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane();
    const T *const y = query.y, *const noise = query.noise;
    const T* image[COUNT];
    GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) image[g] = images[g];
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        for (int64_t i = from; i < to; i += kLanes) {
            Vec e[COUNT];
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) e[g] =
                CENTRED ? load<Vec>(image[g] + channels * plane + i) : Vec{} - load<Vec>(noise + i);
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                const Vec x = load<Vec>(y + c * plane + i);
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) {
                    const Vec v = load<Vec>(image[g] + c * plane + i);
                    if constexpr (CENTRED)
                        e[g] -= v * x;
                    else
                        e[g] += (x - v) * (x - v);
                }
            }
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) store(out + g * apart + i, e[g]);
        }
    };
    if (s.channels == 3) return loop(3);
    if (s.channels == 1) return loop(1);
    loop(s.channels);
}

// Sums over the windows of the rows from, ..., to - 1 of what lies in the differences of an image, to `out`: by way of
// registers alone, ROW to a row. BEFORE: of windows all whose other pixels lie before their own; -1: as they are.
template <int ROW, bool WRAPS, int BEFORE, class T>
GEODIFF_BLOCK void sums_in_line(const Window& w, int64_t from, int64_t to, const Parts<T>& rows, T* out) {
    typedef typename In<T>::Vec Vec;
    constexpr int64_t kLanes = In<T>::lanes, kStride = ROW * kLanes;
    const int count = rows.count, before = BEFORE < 0 ? int(w.left) : BEFORE, after = BEFORE < 0 ? int(w.right) : 0;
    const T* at[kMostParts];
    for (int j = 0; j < count; ++j) at[j] = rows.at[j] + from * kStride;
    for (int64_t i = 0; i < (to - from) * kStride; i += kStride) {
        Vec sums[1][ROW];
        GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) sums[0][r] = load<Vec>(at[0] + i + r * kLanes);
        for (int j = 1; j < count; ++j)
            GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) sums[0][r] += load<Vec>(at[j] + i + r * kLanes);
        Line<T, ROW, WRAPS>::sum(sums, before, after);
        GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) store(out + i + r * kLanes, sums[0][r]);
    }
}

// The same by way of columns.
template <class T>
GEODIFF_BLOCK void sums_of_columns(const PlaneShape& s, const Window& w, int64_t from, int64_t to, const Parts<T>& rows,
                                   const Room<T>& room, T* out) {
    typedef typename In<T>::Vec Vec;
    constexpr int64_t kLanes = In<T>::lanes;
    const int64_t stride = s.stride, pitch = room.pitch, height = to - from;
    T* const first = room.columns + room.margin;  // past the width zeros
    for_parts(rows, [&](auto parts) {
        for (int64_t y = 0; y < height; ++y) {
            T* const line = first + y * pitch;
            for (int64_t x = 0; x < stride; x += kLanes) store(line + x, window<Vec>(parts, (from + y) * stride + x));
            if (!w.wraps) continue;
            for (int64_t x = 0; x < w.left; ++x) line[x - w.left] = line[s.width - w.left + x];
            for (int64_t x = 0; x < w.right; ++x) line[s.width + x] = line[x];
        }
    });
    const int64_t length = room.length - (room.rows - height) * pitch;
    add_levels<Vec>(room.columns, 0, length, 1, w.columns(), room.column_level, room.column_levels);
    const int64_t begin = room.margin - w.left;
    for_parts(box_parts(room.columns, room.column_level, 1, w.columns(), room.column_levels), [&](auto parts) {
        for (int64_t y = 0; y < height; ++y)
            for (int64_t x = 0; x < stride; x += kLanes)
                store(out + y * stride + x, window<Vec>(parts, y * pitch + begin + x));
    });
}

template <class T>
inline void window_sums(const PlaneShape& s, const Window& w, int64_t from, int64_t to, const Parts<T>& rows,
                        const Room<T>& room, T* out) {
    if constexpr (kShifts<typename In<T>::Vec>)
        if (room.line > 0) {
            return with_constant<kMostLine + 1>(room.line, [&](auto registers) {
                constexpr int ROW = decltype(registers)::value;
                if constexpr (ROW == kSmallLine && kKeepsRows<T>)
                    if (room.half > 0 && w.right == 0)
                        return with_constant<kMostHalf + 1>(room.half, [&](auto half) {
                            sums_in_line<ROW, false, 2 * decltype(half)::value>(w, from, to, rows, out);
                        });
                if constexpr (ROW > 0) {
                    if (w.wraps)
                        sums_in_line<ROW, true, -1>(w, from, to, rows, out);
                    else
                        sums_in_line<ROW, false, -1>(w, from, to, rows, out);
                }
            });
        }
    sums_of_columns(s, w, from, to, rows, room, out);
}

// Levels of sums over rows of image g where the rows first, ..., end - 1 are new.
template <class T>
inline void add_row_levels(const PlaneShape& s, const Window& w, int64_t first, int64_t end, const Room<T>& room,
                           int g) {
    if (doublings(w.rows()) == 0) return;
    add_levels<typename In<T>::Vec>(room.differences + g * room.tall, (first + w.above) * s.stride,
                                    (end + w.above) * s.stride, s.stride, w.rows(), room.tall,
                                    room.row_levels + g * room.row_level);
}

// Squared differences of COUNT images where the windows of the rows from, ..., to - 1 need them, those of the rows
// before having been asked for.
template <int COUNT, class T>
inline void differences_for(const PlaneShape& s, const LocalQuery<T>& query, const T* const* images, int64_t from,
                            int64_t to, const Room<T>& room) {
    const Window& w = query.window;
    T* const e = room.differences + w.above * s.stride;
    const auto make = [&](int64_t first, int64_t end) {
        if (query.centred)
            squared_differences<COUNT, true>(s, query, images, first * s.stride, end * s.stride, e, room.tall);
        else
            squared_differences<COUNT, false>(s, query, images, first * s.stride, end * s.stride, e, room.tall);
    };
    const int64_t first = from == 0 ? -w.above : from + w.below, end = to + w.below;
    if (!w.wraps) {
        make(first > 0 ? first : 0, end < s.height ? end : s.height);
    } else if (from == 0) {
        make(0, s.height);
        for (int g = 0; g < COUNT; ++g) {
            T* const mine = e + g * room.tall;
            std::memcpy(mine - w.above * s.stride, mine + (s.height - w.above) * s.stride,
                        size_t(w.above * s.stride) * sizeof(T));
            std::memcpy(mine + s.size(), mine, size_t(w.below * s.stride) * sizeof(T));
        }
    }
    for (int g = 0; g < COUNT; ++g) add_row_levels(s, w, first, end, room, g);
}

// Windows over 2 HALF + 1 rows, the last of them the one that a loop is at, of COUNT images: what they need of the rows
// before stays in registers, and from band to band in `kept`. A window is a row between two sums of HALF rows.
template <int COUNT, int HALF, class T>
struct KeptRows {
    typedef typename In<T>::Vec Vec;
    static constexpr int ROW = kSmallLine, kRows = HALF == 1 ? 2 : HALF, kSums = HALF == 1 ? 0 : HALF + 1;
    static constexpr int64_t kLanes = In<T>::lanes;

    Vec row[COUNT][ROW];                    // that the loop is at
    Vec before[COUNT][kRows + kSums][ROW];  // rows before it, the last one first, and sums that end with them

    // f(image, register of a row)
    template <class F>
    static GEODIFF_INLINE void each(F&& f) {
        GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) f(g, r);
    }
    // f(image, register of a row, which of `before`, the last one first)
    template <class F>
    static GEODIFF_INLINE void each_before(F&& f) {
        GEODIFF_UNROLL for (int j = kRows + kSums - 1; j >= 0; --j) each([&](int g, int r) { f(g, r, j); });
    }
    static int64_t place(int g, int r, int j) { return ((g * (kRows + kSums) + j) * ROW + r) * kLanes; }

    GEODIFF_INLINE void clear() {
        each_before([&](int g, int r, int j) { before[g][j][r] = Vec{}; });
    }
    GEODIFF_INLINE void load_from(const T* kept) {
        each_before([&](int g, int r, int j) { before[g][j][r] = load<Vec>(kept + place(g, r, j)); });
    }
    GEODIFF_INLINE void store_to(T* kept) const {
        each_before([&](int g, int r, int j) { store(kept + place(g, r, j), before[g][j][r]); });
    }
    // Goes on to the next row. `windows`, if any: [COUNT, ROW] sums over the rows so far.
    GEODIFF_INLINE void next(Vec (*windows)[ROW] = nullptr) {
        each([&](int g, int r) {
            Vec(&old)[kRows + kSums][ROW] = before[g];
            Vec sum = row[g][r];
            GEODIFF_UNROLL for (int j = 0; j < HALF - 1; ++j) sum += old[j][r];
            if (windows) windows[g][r] = sum + old[HALF - 1][r] + old[kRows + kSums - 1][r];
            GEODIFF_UNROLL for (int j = kSums - 1; j > 0; --j) old[kRows + j][r] = old[kRows + j - 1][r];
            if constexpr (kSums > 0) old[kRows][r] = sum;
            GEODIFF_UNROLL for (int j = kRows - 1; j > 0; --j) old[j][r] = old[j - 1][r];
            old[0][r] = row[g][r];
        });
    }
};

// The windows' squared differences in the rows from, ..., to - 1 of COUNT images, those of image g to out + g * band,
// for windows of so many pixels before their own and behind it, along both axes.
template <int COUNT, int BEFORE, int AFTER, bool CENTRED, class T>
GEODIFF_BLOCK void small_windows(const PlaneShape& s, const LocalQuery<T>& query, const T* const* images, int64_t from,
                                 int64_t to, T* kept, T* out, int64_t band) {
    typedef typename In<T>::Vec Vec;
    constexpr int ROW = kSmallLine;
    constexpr int64_t kLanes = In<T>::lanes, kStride = ROW * kLanes;
    const int64_t plane = s.plane(), height = s.height;
    const T *const y = query.y, *const noise = query.noise;
    const T* image[COUNT];
    GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) image[g] = images[g];
    KeptRows<COUNT, (BEFORE + AFTER) / 2, T> e;
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        const auto make = [&](int64_t row) GEODIFF_INLINE_LAMBDA {
            if (row >= height) return e.each([&](int g, int r) { e.row[g][r] = Vec{}; });
            const int64_t i = row * kStride;
            e.each([&](int g, int r) {
                e.row[g][r] = CENTRED ? load<Vec>(image[g] + channels * plane + i + r * kLanes)
                                      : Vec{} - load<Vec>(noise + i + r * kLanes);
            });
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                Vec x[ROW];
                GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) x[r] = load<Vec>(y + c * plane + i + r * kLanes);
                e.each([&](int g, int r) {
                    const Vec v = load<Vec>(image[g] + c * plane + i + r * kLanes);
                    if constexpr (CENTRED)
                        e.row[g][r] -= v * x[r];
                    else
                        e.row[g][r] += (x[r] - v) * (x[r] - v);
                });
            }
        };
        if (from == 0) {
            e.clear();
            for (int64_t row = 0; row < AFTER; ++row) make(row), e.next();
        } else {
            e.load_from(kept);
        }
        const auto some = [&](auto rows, int64_t row) GEODIFF_INLINE_LAMBDA {
            constexpr int ROWS = decltype(rows)::value;
            Vec sums[ROWS * COUNT][ROW];
            GEODIFF_UNROLL for (int j = 0; j < ROWS; ++j) {
                make(row + j + AFTER);
                e.next(sums + j * COUNT);
            }
            Line<T, ROW, false>::sum(sums, BEFORE, AFTER);
            T* const to = out + (row - from) * kStride;
            GEODIFF_UNROLL for (int j = 0; j < ROWS; ++j)
                e.each([&](int g, int r) { store(to + g * band + j * kStride + r * kLanes, sums[j * COUNT + g][r]); });
        };
        int64_t row = from;
        if constexpr (COUNT == 1)
            for (; row + 1 < to; row += 2) some(Constant<2>(), row);
        for (; row < to; ++row) some(Constant<1>(), row);
        if (to < query.rows) e.store_to(kept);
    };
    if (s.channels == 3) return loop(3);
    if (s.channels == 1) return loop(1);
    loop(s.channels);
}

template <int COUNT, int BEFORE, int AFTER, class T>
inline void small_windows_of(const PlaneShape& s, const LocalQuery<T>& query, const T* const* images, int64_t from,
                             int64_t to, const Room<T>& room) {
    constexpr int kSome = COUNT > 1 && BEFORE + AFTER == 2 ? 2 : 1;
    for (int g = 0; g < COUNT; g += kSome) {
        T *const kept = room.differences + g * room.tall, *const out = room.sums + g * room.band;
        if (query.centred)
            small_windows<kSome, BEFORE, AFTER, true>(s, query, images + g, from, to, kept, out, room.band);
        else
            small_windows<kSome, BEFORE, AFTER, false>(s, query, images + g, from, to, kept, out, room.band);
    }
}

// The windows' squared differences in the rows from, ..., to - 1 of COUNT images, to room.sums.
template <int COUNT, class T>
inline void windows_of(const PlaneShape& s, const LocalQuery<T>& query, const T* const* images, int64_t from,
                       int64_t to, const Room<T>& room) {
    if constexpr (kKeepsRows<T>)
        if (room.half > 0)
            return with_constant<kMostHalf + 1>(room.half, [&](auto half) {
                constexpr int HALF = decltype(half)::value;
                if constexpr (HALF > 0) {
                    if (query.window.above == 0)
                        small_windows_of<COUNT, 0, 2 * HALF>(s, query, images, from, to, room);
                    else
                        small_windows_of<COUNT, HALF, HALF>(s, query, images, from, to, room);
                }
            });
    if constexpr (COUNT <= kTogether) {
        differences_for<COUNT>(s, query, images, from, to, room);
        for (int g = 0; g < COUNT; ++g)
            window_sums(s, query.window, from, to, room.over_rows(s, query.window, g), room, room.sums + g * room.band);
    }
}

// f(first image, how many as a constant of the compiler): MOST of them, kTogether, then single ones.
template <int MOST, class F>
inline void in_groups(int count, F&& f) {
    int first = 0;
    if constexpr (MOST > kTogether)
        for (; first + MOST <= count; first += MOST) f(first, Constant<MOST>());
    for (; first + kTogether <= count; first += kTogether) f(first, Constant<kTogether>());
    for (; first < count; ++first) f(first, Constant<1>());
}

// f(first row, end) for the bands of so many rows
template <class T, class F>
inline void in_bands(int64_t rows, const Room<T>& room, F&& f) {
    for (int64_t from = 0; from < rows; from += room.rows) f(from, from + room.rows < rows ? from + room.rows : rows);
}

}  // namespace
