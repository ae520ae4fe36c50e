// Local denoisers: squared differences of a query and an image at every pixel, their sums over windows, and the
// streaming softmax of each pixel.
#pragma once

#include "../local_table.h"
#include "box.h"
#include "dot.h"
#include "exact.h"
#include "exp.h"

namespace {

using geodiff::kMean;
using geodiff::kNorm;
using geodiff::kSquare;
using geodiff::kWeight;
using geodiff::LocalCrops;
using geodiff::LocalImages;
using geodiff::LocalQuery;
using geodiff::LocalSums;
using geodiff::PlaneShape;
using geodiff::Window;

constexpr int kTogether = 4;  // images that a pixel's sums are taken to registers for
constexpr int kParts = 6;     // of a window, with which loops are unrolled: the most up to 31 pixels

template <class T>
void widen_image(const void* row, DType dtype, const PlaneShape& s, const T* reference, T* image) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        const int64_t rows = s.channels * s.height, d = rows * s.width;
        if (s.in_rows)
            for (int64_t k = 0; k < d; k += s.width) widen_part<D>(row, k, s.width, image + s.place[k]);
        float some[kChunk];
        for (int64_t k = 0; !s.in_rows && k < d; k += kChunk) {
            const int64_t len = d - k < kChunk ? d - k : kChunk;
            widen_part<D>(row, k, len, some);
            for (int64_t i = 0; i < len; ++i) image[s.place[k + i]] = T(some[i]);
        }
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t x = s.width; x < s.stride; ++x) image[r * s.stride + x] = 0;
    });
    for (int64_t i = 0; i < s.plane(); i += kLanes) {
        Vec norm = {};
        for (int64_t c = 0; c < s.channels; ++c) {
            const Vec v = load<Vec>(image + c * s.plane() + i) - load<Vec>(reference + c * s.plane() + i);
            store(image + c * s.plane() + i, v);
            norm += v * v;
        }
        store(image + s.channels * s.plane() + i, norm);
    }
}

// Where the arrays lie that one image after the other goes through.
//     differences [above + height + below, stride]   zero outside the image, or the other end of it
//     levels                                         of sums over rows
//     columns [height, pitch]                        sums over rows, with a margin before each row that serves the row
//                                                    before it too, unless the image wraps
//     levels                                         of sums over columns
//     logits [kTogether] planes, partial sums, touched [plane / lanes]
template <class T>
struct Room {
    static constexpr int64_t kLanes = In<T>::lanes;
    T *differences, *row_levels, *columns, *column_levels, *logits, *partial, *touched;
    int64_t tall, margin, pitch, length, total;

    Room(const PlaneShape& s, const Window& w, T* at) {
        const T* const start = at;
        const auto take = [&](int64_t n) {
            T* const here = at;
            at += (n + 2 * kLanes + 63) / 64 * 64;
            return here;
        };
        tall = (w.above + s.height + w.below) * s.stride;
        margin = w.wraps ? w.left : w.left > w.right ? w.left : w.right;
        pitch = s.width + (w.wraps ? w.left + w.right : margin);
        length = s.height * pitch + margin + s.stride - s.width;
        differences = take(tall);
        row_levels = take(doublings(w.rows()) * (tall + 2 * kLanes));
        columns = take(length);
        column_levels = take(doublings(w.columns()) * (length + 2 * kLanes));
        logits = take(kTogether * s.plane());
        partial = take((kMean + 2 * s.channels) * s.plane());
        touched = take(s.plane() / kLanes);
        total = at - start;
    }
};

template <class T>
int64_t room_for(const PlaneShape& shape, const Window& window) {
    return Room<T>(shape, window, nullptr).total;
}

template <bool CENTRED, class T>
inline void squared_differences(const PlaneShape& s, const LocalQuery<T>& query, const T* image, T* out) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane();
    const T *const y = query.y, *const noise = query.noise;
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        for (int64_t i = 0; i < plane; i += kLanes) {
            Vec e = CENTRED ? load<Vec>(image + channels * plane + i) : Vec{} - load<Vec>(noise + i);
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c) {
                const Vec v = load<Vec>(image + c * plane + i), x = load<Vec>(y + c * plane + i);
                if constexpr (CENTRED)
                    e -= v * x;
                else
                    e += (x - v) * (x - v);
            }
            store(out + i, e);
        }
    };
    if (s.channels == 3) return loop(3);
    if (s.channels == 1) return loop(1);
    loop(s.channels);
}

// f(a constant of the compiler) for the number of parts of a window; 0: more than loops are unrolled for
template <class F>
inline void for_parts(int count, F&& f) {
    with_constant<kParts + 1>(count <= kParts ? count : 0, f);
}

// f(place in a plane, sums over the window) of room.differences, a register at a time, for so many rows
template <class T, class F>
inline void window_sums(const PlaneShape& s, const Window& w, int64_t height, const Room<T>& room, F&& f) {
    typedef typename In<T>::Vec Vec;
    T* const e = room.differences + w.above * s.stride;
    if (w.wraps) {
        std::memcpy(room.differences, e + (s.height - w.above) * s.stride, size_t(w.above * s.stride) * sizeof(T));
        std::memcpy(e + s.plane(), e, size_t(w.below * s.stride) * sizeof(T));
    }
    const Parts<T> rows = box_parts<Vec>(room.differences, room.tall, s.stride, w.rows(), room.row_levels);
    for_parts(rows.count, [&](auto count) {
        for (int64_t y = 0; y < height; ++y) {
            T* const to = room.columns + y * room.pitch + room.margin;  // past the width zeros: the next row's margin
            each_window<decltype(count)::value, Vec>(rows, y * s.stride, s.stride,
                                                     [&](int64_t x, Vec sum) { store(to + x, sum); });
            if (w.wraps) {
                for (int64_t x = 0; x < w.left; ++x) to[x - w.left] = to[s.width - w.left + x];
                for (int64_t x = 0; x < w.right; ++x) to[s.width + x] = to[x];
            }
        }
    });
    const int64_t length = room.length - (s.height - height) * room.pitch;
    const Parts<T> columns = box_parts<Vec>(room.columns, length, 1, w.columns(), room.column_levels);
    for_parts(columns.count, [&](auto count) {
        for (int64_t y = 0; y < height; ++y)
            each_window<decltype(count)::value, Vec>(columns, y * room.pitch + room.margin - w.left, s.stride,
                                                     [&](int64_t x, Vec sum) { f(y * s.stride + x, sum); });
    });
}

// f(place in a plane, logits), which are prior - scale times the windows' squared differences
template <class T, class F>
inline void logits_of(const PlaneShape& s, const LocalQuery<T>& query, const T* image, T prior, const Room<T>& room,
                      F&& f) {
    typedef typename In<T>::Vec Vec;
    T* const e = room.differences + query.window.above * s.stride;
    if (query.centred)
        squared_differences<true>(s, query, image, e);
    else
        squared_differences<false>(s, query, image, e);
    window_sums(s, query.window, query.rows, room, [&](int64_t i, Vec sum) { f(i, prior - query.scale * sum); });
}

// The largest logits of the pixels at i become those of `top`, where larger, and the sums relative to them.
template <int COUNT, class T>
GEODIFF_BLOCK void raise(const PlaneShape& s, int64_t i, const T* logits, typename In<T>::Vec top,
                         const int64_t* number, const Room<T>& room, const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane();
    const Vec old = load<Vec>(to.max + i), scale = exp_of(old - top);
    for (int64_t k = 0; k < to.planes(s.channels); ++k) {
        const Vec factor = k == kSquare ? scale * scale : scale;
        store(room.partial + k * plane + i, load<Vec>(room.partial + k * plane + i) * factor);
        for (int lane = 0; lane < kLanes; ++lane) to.sums[k * plane + i + lane] *= double(factor[lane]);
    }
    store(to.max + i, top);
    for (int g = COUNT - 1; g >= 0; --g)  // of equals the first
        for (int lane = 0; lane < kLanes; ++lane)
            if (const T l = logits[g * plane + i + lane]; l == top[lane] && l > old[lane]) to.top[i + lane] = number[g];
}

// Adds COUNT images whose logits are known.
template <int COUNT, class T>
inline void add_images(const PlaneShape& s, int64_t rows, const T* const* images, const int64_t* number, T cut,
                       const Room<T>& room, const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const int64_t plane = s.plane();
    T* const partial = room.partial;
    const auto loop = [&](int64_t channels) GEODIFF_INLINE_LAMBDA {
        for (int64_t i = 0; i < rows * s.stride; i += kLanes) {
            Vec p[COUNT], top, max = load<Vec>(to.max + i);
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) p[g] = load<Vec>(room.logits + g * plane + i);
            top = p[0];
            GEODIFF_UNROLL for (int g = 1; g < COUNT; ++g) top = larger(top, p[g]);
            if (!any_above(top, max - cut)) continue;
            room.touched[i / kLanes] = 1;
            if (any_above(top, max)) {
                max = larger(max, top);
                raise<COUNT>(s, i, room.logits, max, number, room, to);
            }
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) p[g] = exp_of(p[g] - max);
            const auto add = [&](int64_t k, auto&& term) GEODIFF_INLINE_LAMBDA {
                Vec sum = load<Vec>(partial + k * plane + i);
                GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sum += p[g] * term(g);
                store(partial + k * plane + i, sum);
            };
            add(kWeight, [&](int) { return T(1); });
            add(kSquare, [&](int g) { return p[g]; });
            if (to.alone) continue;
            add(kNorm, [&](int g) { return load<Vec>(images[g] + channels * plane + i); });
            GEODIFF_UNROLL4 for (int64_t c = 0; c < channels; ++c)
                add(kMean + c, [&](int g) { return load<Vec>(images[g] + c * plane + i); });
            for (int64_t c = 0; to.squares && c < channels; ++c)
                add(kMean + channels + c, [&](int g) {
                    const Vec v = load<Vec>(images[g] + c * plane + i);
                    return v * v;
                });
        }
    };
    if (s.channels == 3) return loop(3);
    if (s.channels == 1) return loop(1);
    loop(s.channels);
}

template <class T>
void local_posterior(const PlaneShape& s, const LocalQuery<T>& query, const LocalImages<T>& tile, T cut, T* at,
                     const LocalSums<T>& to) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const Room<T> room(s, query.window, at);
    const int64_t plane = s.plane(), sums = to.planes(s.channels);
    std::memset(room.partial, 0, size_t(sums * plane) * sizeof(T));
    std::memset(room.touched, 0, size_t(plane / kLanes) * sizeof(T));
    for (int first = 0; first < tile.count;) {
        const int count = tile.count - first < kTogether ? 1 : kTogether;
        for (int g = 0; g < count; ++g)
            logits_of(s, query, tile.images[first + g], T(tile.prior[first + g]), room,
                      [&](int64_t i, Vec l) { store(room.logits + g * plane + i, l); });
        if (count == 1)
            add_images<1>(s, query.rows, tile.images + first, tile.number + first, cut, room, to);
        else
            add_images<kTogether>(s, query.rows, tile.images + first, tile.number + first, cut, room, to);
        first += count;
    }
    for (int64_t i = 0; i < plane; i += kLanes)
        if (room.touched[i / kLanes] != 0)
            for (int64_t k = 0; k < sums; ++k) fold(room.partial + k * plane + i, kLanes, to.sums + k * plane + i);
}

// Adds COUNT images with their weights at each pixel, room.logits.
template <int COUNT, class T>
GEODIFF_BLOCK void add_weighted(const PlaneShape& s, const T* const* images, const Room<T>& room) {
    typedef typename In<T>::Vec Vec;
    const int64_t plane = s.plane();
    for (int64_t i = 0; i < plane; i += In<T>::lanes) {
        Vec w[COUNT];
        GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) w[g] = load<Vec>(room.logits + g * plane + i);
        const auto add = [&](int64_t k, auto&& term) GEODIFF_INLINE_LAMBDA {
            Vec sum = load<Vec>(room.partial + k * plane + i);
            GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sum += w[g] * term(g);
            store(room.partial + k * plane + i, sum);
        };
        add(kWeight, [&](int) { return T(1); });
        add(kNorm, [&](int g) { return load<Vec>(images[g] + s.channels * plane + i); });
        GEODIFF_UNROLL4 for (int64_t c = 0; c < s.channels; ++c)
            add(kMean + c, [&](int g) { return load<Vec>(images[g] + c * plane + i); });
    }
}

template <class T>
void compose_crops(const PlaneShape& s, const LocalQuery<T>& query, const LocalCrops<T>& crops,
                   const LocalImages<T>& tile, T cut, T* at, double* sums) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    const Room<T> room(s, query.window, at), back(s, crops.back, crops.room);
    const int64_t plane = s.plane(), planes = kMean + s.channels;
    T* const weights = back.differences + crops.back.above * s.stride;
    std::memset(room.partial, 0, size_t(planes * plane) * sizeof(T));
    const T* images[kTogether];
    int count = 0;
    for (int j = 0; j < tile.count; ++j) {
        T* const own = room.logits + count * plane;
        bool any = false;  // of the weights where crops begin; elsewhere they stay zero
        logits_of(s, query, tile.images[j], T(tile.prior[j]), room, [&](int64_t i, Vec l) {
            const Vec max = load<Vec>(crops.max + i);
            const bool counts = any_above(l, max - cut);
            store(weights + i, counts ? exp_of(l - max) * load<Vec>(crops.gain + i) : Vec{});
            any |= counts;
        });
        if (!any) continue;
        window_sums(s, crops.back, s.height, back, [&](int64_t i, Vec w) { store(own + i, w); });
        images[count++] = tile.images[j];
        if (count < kTogether) continue;
        add_weighted<kTogether>(s, images, room);
        count = 0;
    }
    with_constant<kTogether>(count, [&](auto some) {
        if constexpr (decltype(some)::value > 0) add_weighted<decltype(some)::value>(s, images, room);
    });
    for (int64_t i = 0; i < planes * plane; i += kLanes) fold(room.partial + i, kLanes, sums + i);
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
