// Local denoisers: rows as images, and the streaming softmax of each pixel.
#pragma once

#include "exact.h"
#include "exp.h"
#include "local_crops.h"

namespace {

using geodiff::kSquare;
using geodiff::LocalSums;

template <class T>
void widen_image(const void* row, DType dtype, const PlaneShape& s, const T* reference, T* image) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    // value(c, i): of channel c the numbers from place i on
    const auto centre = [&](auto&& value) GEODIFF_INLINE_LAMBDA {
        const int64_t plane = s.plane();
        const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
            for (int64_t i = 0; i < s.size(); i += kLanes) {
                Vec norm = {};
                GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                    const Vec v = value(c, i) - load<Vec>(reference + c * plane + i);
                    store(image + c * plane + i, v);
                    norm += v * v;
                }
                store(image + channels * plane + i, norm);
            }
        };
        if (s.channels == 3) return loop(3);
        loop(s.channels);
    };
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        const int64_t rows = s.channels * s.height, d = rows * s.width;
        const bool whole = s.in_rows && s.width == s.stride && s.place[s.size() - 1] == s.size() - 1;
        if constexpr (sizeof(T) == sizeof(float))
            if (whole)
                return centre([&](int64_t c, int64_t i) {
                    const int64_t k = c * s.size() + i;
                    // Of the row behind it, which is asked for next: a row ends before the processor's prefetcher gets
                    // going.
                    __builtin_prefetch(static_cast<const char*>(row) + (d + k) * kBytes<D>, 0, 2);
                    return wide<D>(row, k);
                });
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
        centre([&](int64_t c, int64_t i) { return load<Vec>(image + c * s.plane() + i); });
    });
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
