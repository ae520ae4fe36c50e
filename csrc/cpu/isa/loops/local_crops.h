// PSPC-Square: what crops whose masses are known put on each pixel.
#pragma once

#include "exp.h"
#include "local_windows.h"

namespace {

using geodiff::kMean;
using geodiff::kNorm;
using geodiff::kWeight;
using geodiff::LocalCrops;
using geodiff::LocalImages;

// Adds COUNT images with their weights at each pixel of a band, which begins at `from`: room.sums.
template <int COUNT, class T>
GEODIFF_BLOCK void add_weighted(const PlaneShape& s, int64_t from, int64_t size, const T* const* images,
                                const Room<T>& room) {
    typedef typename In<T>::Vec Vec;
    const int64_t plane = s.plane(), band = room.band;
    const T* const weights = room.sums;
    T* const all = room.partial;
    const T* image[COUNT];
    GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) image[g] = images[g];
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        for (int64_t j = 0; j < size; j += In<T>::lanes) {
            const int64_t i = from + j;
            Vec w[COUNT];
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) w[g] = load<Vec>(weights + g * band + j);
            const auto add = [&](int64_t k, auto&& term) GEODIFF_INLINE_LAMBDA {
                T* const partial = all + in_register(k * plane + i);
                Vec sum = load<Vec>(partial);
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sum += w[g] * term(g);
                store(partial, sum);
            };
            add(kWeight, [&](int) { return T(1); });
            int64_t place = in_register(channels * plane + i);
            add(kNorm, [&](int g) { return load<Vec>(image[g] + place); });
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                place = in_register(c * plane + i);
                add(kMean + c, [&](int g) { return load<Vec>(image[g] + place); });
            }
        }
    };
    if (s.channels == 3) return loop(3);
    loop(s.channels);
}

// One image's crops that begin in the rows from, ..., last - 1 of a band up to `end`, and their squared differences.
// FRESH: none that counts begins in the rows before that reaches the band.
template <class T>
struct Crops {
    T prior, cut;
    int64_t from, last, end;
    const T* sums;
    bool fresh;
};

// Weights of crops, from their squared differences: whether any counts.
template <class T>
GEODIFF_BLOCK bool weigh_crops(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& all,
                               const Crops<T>& some, T* weights) {
    typedef typename In<T>::Vec Vec;
    const T *const sums = some.sums, scale = query.scale, prior = some.prior, cut = some.cut;
    const T *const largest = all.max + some.from * s.stride, *const gain = all.gain + some.from * s.stride;
    const int64_t size = (some.last - some.from) * s.stride;
    constexpr int64_t kLanes = In<T>::lanes;
    bool any = false;
    const auto weigh = [&](auto registers, int64_t j) GEODIFF_INLINE_LAMBDA {
        constexpr int COUNT = decltype(registers)::value;
        Vec l[COUNT];
        bool counts = false;
        GEODIFF_UNROLL for (int r = 0; r < COUNT; ++r) {
            l[r] = prior - scale * load<Vec>(sums + j + r * kLanes) - load<Vec>(largest + j + r * kLanes);
            counts |= any_above(l[r], -cut - Vec{});
        }
        any |= counts;
        if (counts) exp_of(l);
        GEODIFF_UNROLL for (int r = 0; r < COUNT; ++r)
            store(weights + j + r * kLanes, counts ? l[r] * load<Vec>(gain + j + r * kLanes) : Vec{});
    };
    int64_t j = 0;
    for (; j + 2 * kLanes <= size; j += 2 * kLanes) weigh(Constant<2>(), j);  // an exponential is a chain of steps
    if (j < size) weigh(Constant<1>(), j);
    return any;
}

// Whether any counts.
template <class T>
GEODIFF_BLOCK bool any_crop(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& all,
                            const Crops<T>& some) {
    typedef typename In<T>::Vec Vec;
    const T *const sums = some.sums, *const largest = all.max + some.from * s.stride;
    const T scale = query.scale, prior = some.prior, cut = some.cut;
    const int64_t size = (some.last - some.from) * s.stride;
    for (int64_t j = 0; j < size; j += In<T>::lanes)
        if (any_above(prior - scale * load<Vec>(sums + j), load<Vec>(largest + j) - cut)) return true;
    return false;
}

// Weights of pixels, from crops of 2 HALF + 1 pixels each way, whose own weights stay in registers and in `kept`.
template <int HALF, class T>
GEODIFF_BLOCK void small_crops(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& all,
                               const Crops<T>& some, T* kept, T* out) {
    typedef typename In<T>::Vec Vec;
    constexpr int ROW = kSmallLine;
    constexpr int64_t kLanes = In<T>::lanes, kStride = ROW * kLanes;
    const T *const sums = some.sums, scale = query.scale, prior = some.prior, cut = some.cut;
    const T *const largest = all.max + some.from * kStride, *const gain = all.gain + some.from * kStride;
    const int64_t last = (some.last - some.from) * kStride, end = (some.end - some.from) * kStride;
    KeptRows<1, HALF, T> kept_rows;
    if (some.fresh)
        kept_rows.clear();
    else
        kept_rows.load_from(kept);
    // Of ROWS rows, or the first of them if crops begin in no other
    const auto weigh = [&](auto rows, int64_t i, Vec(*weights)[ROW]) GEODIFF_INLINE_LAMBDA {
        constexpr int ROWS = decltype(rows)::value;
        Vec l[ROWS * ROW];
        bool counts = false;
        GEODIFF_UNROLL for (int r = 0; r < ROWS * ROW; ++r) {
            l[r] = prior - scale * load<Vec>(sums + i + r * kLanes) - load<Vec>(largest + i + r * kLanes);
            counts |= any_above(l[r], -cut - Vec{});
        }
        if (!counts) return;
        exp_of(l);
        GEODIFF_UNROLL for (int r = 0; r < ROWS * ROW; ++r) weights[r / ROW][r % ROW] =
            l[r] * load<Vec>(gain + i + r * kLanes);
    };
    // Chains of steps, those of two rows beside each other
    const auto some_rows = [&](auto rows, int64_t i) GEODIFF_INLINE_LAMBDA {
        constexpr int ROWS = decltype(rows)::value;
        Vec lines[ROWS][ROW] = {};
        if (i + (ROWS - 1) * kStride < last)
            weigh(rows, i, lines);
        else if (i < last)
            weigh(Constant<1>(), i, lines);
        GEODIFF_UNROLL for (int j = 0; j < ROWS; ++j) {
            GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) kept_rows.row[0][r] = lines[j][r];
            kept_rows.next(lines + j);
        }
        Line<T, ROW, false>::sum(lines, 2 * HALF, 0);
        GEODIFF_UNROLL for (int j = 0; j < ROWS; ++j) GEODIFF_UNROLL for (int r = 0; r < ROW; ++r)
            store(out + i + j * kStride + r * kLanes, lines[j][r]);
    };
    int64_t i = 0;
    for (; i + kStride < end; i += 2 * kStride) some_rows(Constant<2>(), i);
    if (i < end) some_rows(Constant<1>(), i);
    if (some.end < s.height) kept_rows.store_to(kept);
}

// The weights that image g has at the pixels of a band, to `out`, if it has any. Whether any of its crops counts.
template <class T>
inline bool weights_of_pixels(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& all,
                              const Crops<T>& some, const Room<T>& back, int g, T* out) {
    T* const kept = back.differences + g * back.tall;
    if constexpr (kKeepsRows<T>)
        if (back.half > 0) {
            const bool counts = any_crop(s, query, all, some);
            if (counts || !some.fresh)
                with_constant<kMostHalf + 1>(back.half, [&](auto half) {
                    constexpr int HALF = decltype(half)::value;
                    if constexpr (HALF > 0) small_crops<HALF>(s, query, all, some, kept, out);
                });
            return counts;
        }
    const int64_t above = all.back.above;
    T* const weights = kept + above * s.stride;  // zero where no crop begins
    const bool counts = weigh_crops(s, query, all, some, weights + some.from * s.stride);
    add_row_levels(s, all.back, some.from == 0 ? -above : some.from, some.end, back, g);
    if (counts || !some.fresh) window_sums(s, all.back, some.from, some.end, back.over_rows(s, all.back, g), back, out);
    return counts;
}

template <class T>
void compose_crops(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& crops,
                   const LocalImages<T>& tile, T cut, T* at, double* sums) {
    constexpr int kLanes = In<T>::lanes;
    const Room<T> room(s, query.window, at), back(s, crops.back, crops.room);
    const int64_t plane = s.plane(), planes = kMean + s.channels, above = crops.back.above;
    in_groups<kTogether>(tile.count, [&](int first, auto count) {
        constexpr int COUNT = decltype(count)::value;
        int64_t end_of[COUNT];  // row behind which an image has no weights so far
        GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) end_of[g] = -above;
        in_bands(s.height, room, [&](int64_t from, int64_t end) {
            const int64_t last = end < query.rows ? end : query.rows;
            if (from < last) windows_of<COUNT>(s, query, tile.images + first, from, last, room);
            const T* images[COUNT];
            int some = 0;
            for (int g = 0; g < COUNT; ++g) {
                const bool fresh = end_of[g] + above <= from;
                const Crops<T> mine = {T(tile.prior[first + g]),  cut,  from, last, end,
                                       room.sums + g * room.band, fresh};
                const bool counts = weights_of_pixels(s, query, crops, mine, back, g, back.sums + some * back.band);
                if (counts) end_of[g] = last;
                if (counts || !fresh) images[some++] = tile.images[first + g];
            }
            with_constant<COUNT + 1>(some, [&](auto n) {
                if constexpr (decltype(n)::value > 0)
                    add_weighted<decltype(n)::value>(s, from * s.stride, (end - from) * s.stride, images, back);
            });
        });
    });
    for (int64_t i = 0; i < planes * plane; i += kLanes) fold(back.partial + i, kLanes, sums + i);
}

}  // namespace
