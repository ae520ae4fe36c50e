// The inner loops of local denoisers, as an instruction set offers them: float32, and the same in float64.
#pragma once

#include <cstdint>

#include "../../common/stored.h"

namespace geodiff {

// Images as these loops hold them: `channels` planes of height x stride numbers of T, of which a row's from `width` on
// are zero.
struct PlaneShape {
    int64_t channels, height, width, stride;
    const int32_t* place;  // [channels height width]  where a value of a row lies in the planes
    bool in_rows;          // values of a row of the image lie side by side

    int64_t size() const { return height * stride; }
    // From one plane to the next. As many bytes as a page would put what a loop reads of all planes to the same eight
    // places of L1: so they are so many lines of 16 numbers that 16 planes lie apart there.
    int64_t plane() const {
        const int64_t lines = (size() + 15) / 16;
        return 16 * (lines + (25 - lines % 16) % 16);
    }
    int64_t image() const { return (channels + 1) * plane(); }  // c = v - reference, and behind it |c|^2 of each pixel
};

// Windows of (before + 1 + after) pixels along each axis. `wraps`: they go on at the other end of the image, else
// they are clipped there.
struct Window {
    int64_t above, below, left, right;
    bool wraps;

    int64_t rows() const { return above + 1 + below; }
    int64_t columns() const { return left + 1 + right; }
    // The windows that a pixel is in, by the pixels that they belong to.
    Window back() const { return {below, above, right, left, wraps}; }
};

// What one query has summed up at each pixel: sums are relative to its largest logit `max` [plane].
// Planes of `sums`: w, w^2, w |c|^2, w c of the channels, and w c^2 of the channels where it is wanted.
constexpr int64_t kWeight = 0, kSquare = 1, kNorm = 2, kMean = 3;
template <class T>
struct LocalSums {
    T* max;
    double* sums;
    int64_t* top;  // [plane]  the image of the largest logit
    bool squares;  // whether w c^2 is wanted
    bool alone;    // only w and w^2 are

    int64_t planes(int64_t channels) const { return alone ? kNorm : kMean + channels * (squares ? 2 : 1); }
};

// Crops of a query, each at its first pixel: the largest logit and one over the mass, zero where none fits.
template <class T>
struct LocalCrops {
    const T* max;   // [plane]
    const T* gain;  // [plane]
    Window back;    // the crops that a pixel is in
    T* room;        // for that window
};

// One query, ready for the loops.
template <class T>
struct LocalQuery {
    Window window;
    // Squared differences less |y|^2, y = x - reference, which all images share: |c|^2 - <c, 2 y>. Else less `noise`.
    bool centred;
    const T* y;      // [channels] planes; 2 y if centred
    const T* noise;  // [plane]  C sigma^2, what they are where an image is x but for noise; zero beyond the width
    T scale;         // 1 / 2 sigma^2
    int64_t rows;    // of the image, whose pixels have windows: of crops those that begin in a row where they fit
};

// Images of a tile, of which `images` and `prior` list those that the query sees.
template <class T>
struct LocalImages {
    const T* const* images;
    const double* prior;    // log weights
    const int64_t* number;  // what `top` calls them
    int count;
};

template <class T>
struct LocalLoops {
    int64_t lanes;  // numbers of a register: rows of planes are a multiple of it

    // image [channels + 1] planes, from a row as stored
    void (*widen)(const void* row, DType dtype, const PlaneShape& shape, const T* reference, T* image);
    // Numbers of T that `posterior` and `compose` need as room, zeroed before the first call of a shape and window.
    int64_t (*room)(const PlaneShape& shape, const Window& window);
    // Sums up the images at every pixel, the logit of an image being the log weight less `scale` times the squared
    // differences in the window; images further than `cut` below the largest logit may be left out.
    void (*posterior)(const PlaneShape& shape, const LocalQuery<T>& query, const LocalImages<T>& images, T cut, T* room,
                      const LocalSums<T>& to);
    // Adds sum_i w c_i, w |c_i|^2 and w to `sums`, planes as of LocalSums, w the sum of an image's weights in all crops
    // that the pixel is in.
    void (*compose)(const PlaneShape& shape, const LocalQuery<T>& query, const LocalCrops<T>& crops,
                    const LocalImages<T>& images, T cut, T* room, double* sums);
};

}  // namespace geodiff
