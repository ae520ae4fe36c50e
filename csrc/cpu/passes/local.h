// Local denoisers (LS): a posterior mean at every pixel, of which only a window around it decides.
#pragma once

#include "../request.h"

namespace geodiff {

// What beside a request a local denoiser is asked: rows are images of channels x height x width values.
struct Local {
    int64_t channels, height, width;
    int64_t of_channel, of_row, of_column;  // value (c, y, x) of an image is the row's at c of_channel + ...
    const int64_t* patch;                   // [batch]  side of the window, odd; of crops any that fits
    bool wraps;                             // windows go on at the other end of the image, else they are clipped
    bool mirrored;                          // the mirror image of each row is a further row
    bool crops;                             // PSPC-Square: a pixel is the plain mean of the crops that it is in
    const double* mean;                     // [d]  of the rows, in centred units
    int64_t copies;                         // the mirror image of row i has the number `copies` + i

    int64_t pixels() const { return height * width; }
    // Where a row has the value of a channel at pixel y width + x.
    int64_t value(int64_t channel, int64_t pixel) const {
        return channel * of_channel + pixel / width * of_row + pixel % width * of_column;
    }
    int64_t mirrored_pixel(int64_t pixel) const { return pixel + width - 1 - 2 * (pixel % width); }
};

// Null where not wanted, but for the mean and the path.
struct LocalAnswer {
    double* mean;      // [batch, d]  centred units
    double* variance;  // [batch, d]  sum_i w_i (v_i - r)^2, centred units
    double* log_sum;   // [batch, pixels]  log sum_i exp(log prior_i - squared differences in the window / 2 sigma^2)
    double* ess;       // [batch, pixels]  1 / sum w^2
    int64_t* top;      // [batch, pixels]  the row of the largest weight
    int8_t* path;      // [batch]  whether float32 answered, but for single pixels (dense), or float64 (exact)
};

// Of crops the mean alone is answered, and mirror images are no rows.
void local_posterior(const Request& request, const Local& local, const LocalAnswer& answer);

}  // namespace geodiff
