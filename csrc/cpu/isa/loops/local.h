// Local denoisers: rows as images, and the streaming softmax of each pixel.
#pragma once

#include "exact.h"
#include "exp.h"
#include "local_windows.h"

namespace {

using geodiff::kMean;
using geodiff::kNorm;
using geodiff::kSquare;
using geodiff::kWeight;
using geodiff::LocalCrops;
using geodiff::LocalImages;
using geodiff::LocalSums;

template <class T>
void widen_image(const void* row, DType dtype, const PlaneShape& s, const T* reference, T* image) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        const int64_t rows = s.channels * s.height, d = rows * s.width;
        const bool whole = s.width == s.stride && s.place[s.size() - 1] == s.size() - 1;
        const int64_t part = whole ? s.size() : s.width;  // that lies side by side in the image, too
        if (s.in_rows)
            for (int64_t k = 0; k < d; k += part) widen_part<D>(row, k, part, image + s.place[k]);
        float some[kChunk];
        for (int64_t k = 0; !s.in_rows && k < d; k += kChunk) {
            const int64_t len = d - k < kChunk ? d - k : kChunk;
            widen_part<D>(row, k, len, some);
            for (int64_t i = 0; i < len; ++i) image[s.place[k + i]] = T(some[i]);
        }
        for (int64_t c = 0; c < s.channels; ++c)
            for (int64_t y = 0; y < s.height; ++y)
                for (int64_t x = s.width; x < s.stride; ++x) image[c * s.plane() + y * s.stride + x] = 0;
    });
    const auto centre = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        const int64_t plane = s.plane();
        for (int64_t i = 0; i < s.size(); i += kLanes) {
            Vec norm = {};
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                const Vec v = load<Vec>(image + c * plane + i) - load<Vec>(reference + c * plane + i);
                store(image + c * plane + i, v);
                norm += v * v;
            }
            store(image + channels * plane + i, norm);
        }
    };
    if (s.channels == 3) return centre(3);
    centre(s.channels);
}

inline void to_doubles(VecF x, VecD* to) {
    HalfF half[2];
    std::memcpy(half, &x, sizeof half);
    to[0] = as_doubles(half[0]), to[1] = as_doubles(half[1]);
}
inline void to_doubles(VecD x, VecD* to) { to[0] = x; }

// What a tile has summed up moves to the sums of all, which are made relative to what is now the largest logit.
template <class T>
GEODIFF_BLOCK void fold_all(const PlaneShape& s, const Room<T>& room, const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes, kDoubles = kLanes / kD;
    const int64_t plane = s.plane(), planes = to.planes(s.channels);
    for (int64_t i = 0; i < s.size(); i += kLanes) {
        if (room.touched[i / kLanes] == 0) continue;
        room.touched[i / kLanes] = 0;
        const Vec old = load<Vec>(room.before + i), max = load<Vec>(to.max + i);
        VecD scale[kDoubles], part[kDoubles];
        to_doubles(exp_of(old - max), scale);
        T* from = room.partial + i;
        double* sums = to.sums + i;
        for (int64_t k = 0; k < planes; ++k, from += plane, sums += plane) {
            to_doubles(load<Vec>(from), part);
            GEODIFF_UNROLL for (int j = 0; j < kDoubles; ++j) {
                const VecD sum = load<VecD>(sums + j * kD) * scale[j];
                store(sums + j * kD, (k == kSquare ? sum * scale[j] : sum) + part[j]);
            }
            store(from, Vec{});
        }
    }
}

// The largest logits of the pixels at i become those of `top`, where larger, and a tile's sums relative to them.
template <int COUNT, class T>
GEODIFF_BLOCK void raise(const PlaneShape& s, int64_t i, const typename In<T>::Vec* logits, typename In<T>::Vec top,
                         const int64_t* number, const Room<T>& room, const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane(), planes = to.planes(s.channels);
    T* const partial = room.partial + i;
    const Vec old = load<Vec>(to.max + i), scale = exp_of(old - top);
    for (int64_t k = 0; k < planes; ++k)
        store(partial + k * plane, load<Vec>(partial + k * plane) * (k == kSquare ? scale * scale : scale));
    store(to.max + i, top);
    for (int lane = 0; lane < kLanes; ++lane) {
        if (!(top[lane] > old[lane])) continue;
        int g = 0;  // of equals the first
        while (logits[g][lane] != top[lane]) ++g;
        to.top[i + lane] = number[g];
    }
}

// Adds COUNT images in a band that begins at `from`, whose squared differences in windows are known.
template <int COUNT, class T>
GEODIFF_BLOCK void add_images(const PlaneShape& s, const LocalQuery<T>& query, const LocalImages<T>& tile, int first,
                              int64_t from, int64_t size, T cut, const Room<T>& room, const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane(), band = room.band;
    const T scale = query.scale, *const sums = room.sums;
    T *const all = room.partial, *const largest = to.max, *const touched = room.touched, *const before = room.before;
    const bool alone = to.alone, squares = to.squares;
    const T* image[COUNT];
    Vec prior[COUNT];
    GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) {
        image[g] = tile.images[first + g];
        prior[g] = T(tile.prior[first + g]) - Vec{};
    }
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        for (int64_t j = 0; j < size; j += kLanes) {
            const int64_t i = from + j;
            Vec p[COUNT], top, max = load<Vec>(largest + i);
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) {
                p[g] = prior[g] - scale * load<Vec>(sums + g * band + j);
                top = g == 0 ? p[0] : larger(top, p[g]);
            }
            if (!any_above(top, max - cut)) continue;
            if (touched[i / kLanes] == 0) {
                touched[i / kLanes] = 1;
                store(before + i, max);
            }
            if (any_above(top, max)) {
                max = larger(max, top);
                Vec logits[COUNT];
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) logits[g] = p[g];
                raise<COUNT>(s, i, logits, max, tile.number + first, room, to);
            }
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) p[g] -= max;
            exp_of(p);
            const auto add = [&](int64_t k, auto&& term) GEODIFF_INLINE_LAMBDA {
                T* const partial = all + in_register(k * plane + i);
                Vec sum = load<Vec>(partial);
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sum += p[g] * term(g);
                store(partial, sum);
            };
            add(kWeight, [&](int) { return T(1); });
            add(kSquare, [&](int g) { return p[g]; });
            if (alone) continue;
            int64_t place = in_register(channels * plane + i);
            add(kNorm, [&](int g) { return load<Vec>(image[g] + place); });
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                place = in_register(c * plane + i);
                add(kMean + c, [&](int g) { return load<Vec>(image[g] + place); });
            }
            for (int64_t c = 0; squares && c < channels; ++c) {
                place = c * plane + i;
                add(kMean + channels + c, [&](int g) {
                    const Vec v = load<Vec>(image[g] + place);
                    return v * v;
                });
            }
        }
    };
    if (s.channels == 3) return loop(3);
    if (s.channels == 1) return loop(1);
    loop(s.channels);
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

template <class T>
void local_posterior(const PlaneShape& s, const LocalQuery<T>& query, const LocalImages<T>& tile, T cut, T* at,
                     const LocalSums<T>& to) {
    const Room<T> room(s, query.window, at);
    const auto add = [&](int first, auto count) {
        constexpr int COUNT = decltype(count)::value;
        in_bands(query.rows, room, [&](int64_t from, int64_t end) {
            windows_of<COUNT>(s, query, tile.images + first, from, end, room);
            add_images<COUNT>(s, query, tile, first, from * s.stride, (end - from) * s.stride, cut, room, to);
        });
    };
    if (room.half > 0)
        in_groups<kMostTogether>(tile.count, add);
    else
        in_groups<kTogether>(tile.count, add);
    fold_all(s, room, to);
}

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
                Vec sum = load<Vec>(all + k * plane + i);
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sum += w[g] * term(g);
                store(all + k * plane + i, sum);
            };
            add(kWeight, [&](int) { return T(1); });
            add(kNorm, [&](int g) { return load<Vec>(image[g] + channels * plane + i); });
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c)
                add(kMean + c, [&](int g) { return load<Vec>(image[g] + c * plane + i); });
        }
    };
    if (s.channels == 3) return loop(3);
    loop(s.channels);
}

// Weights of crops in a band that begins at `from`, from their squared differences: whether any counts.
template <class T>
GEODIFF_BLOCK bool weigh_crops(const LocalQuery<T>& query, const LocalCrops<T>& crops, T prior, T cut, int64_t from,
                               int64_t size, const T* sums, T* weights) {
    typedef typename In<T>::Vec Vec;
    const T *const largest = crops.max, *const gain = crops.gain, scale = query.scale;
    bool any = false;
    for (int64_t j = 0; j < size; j += In<T>::lanes) {
        const Vec l = prior - scale * load<Vec>(sums + j), max = load<Vec>(largest + from + j);
        const bool counts = any_above(l, max - cut);
        store(weights + from + j, counts ? exp_of(l - max) * load<Vec>(gain + from + j) : Vec{});
        any |= counts;
    }
    return any;
}

template <class T>
void compose_crops(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& crops,
                   const LocalImages<T>& tile, T cut, T* at, double* sums) {
    constexpr int kLanes = In<T>::lanes;
    const Room<T> room(s, query.window, at), back(s, crops.back, crops.room);
    const int64_t plane = s.plane(), planes = kMean + s.channels, above = crops.back.above;
    T* const weights = back.differences + above * s.stride;  // zero where no crop begins
    in_groups<kTogether>(tile.count, [&](int first, auto count) {
        constexpr int COUNT = decltype(count)::value;
        int64_t end_of[COUNT];  // row behind which an image has no weights so far
        GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) end_of[g] = -above;
        in_bands(s.height, room, [&](int64_t from, int64_t end) {
            const int64_t last = end < query.rows ? end : query.rows;
            if (from < last) windows_of<COUNT>(s, query, tile.images + first, from, last, room);
            for (int g = 0; g < COUNT && from < last; ++g)
                if (weigh_crops(query, crops, T(tile.prior[first + g]), cut, from * s.stride, (last - from) * s.stride,
                                room.sums + g * room.band, weights + g * back.tall))
                    end_of[g] = last;
            add_row_levels<COUNT>(s, crops.back, from == 0 ? -above : from, end, back);
            const T* images[COUNT];
            int some = 0;
            for (int g = 0; g < COUNT; ++g) {
                if (end_of[g] + above <= from) continue;
                window_sums(s, crops.back, from, end, back.over_rows(s, crops.back, g), back,
                            back.sums + some * back.band);
                images[some++] = tile.images[first + g];
            }
            with_constant<COUNT + 1>(some, [&](auto n) {
                if constexpr (decltype(n)::value > 0)
                    add_weighted<decltype(n)::value>(s, from * s.stride, (end - from) * s.stride, images, back);
            });
        });
    });
    for (int64_t i = 0; i < planes * plane; i += kLanes) fold(back.partial + i, kLanes, sums + i);
}

template <class T>
inline geodiff::LocalLoops<T> local_loops() {
    geodiff::LocalLoops<T> loops;
    loops.lanes = In<T>::lanes;
    loops.widen = widen_image<T>;
    loops.room = room_for<T>;
    loops.posterior = local_posterior<T>;
    loops.compose = compose_crops<T>;
    return loops;
}

}  // namespace
