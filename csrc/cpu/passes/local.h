// Local denoisers (LS): a posterior mean at every pixel, of which only a window around it decides.
#pragma once

#include "../request.h"

namespace geodiff {

// What beside a request a local denoiser is asked: rows are images of channels x height x width values.
struct Local {
    int64_t channels, height, width;
    const int64_t* patch;  // [batch]  side of the window, odd
    bool wraps;            // windows go on at the other end of the image, else they are clipped
    bool mirrored;         // the mirror image of each row is a further row
    const double* mean;    // [d]  of the rows, in centred units

    int64_t pixels() const { return height * width; }
};

// All [batch, height, width] but the mean; null where not wanted.
struct LocalAnswer {
    double* mean;     // [batch, d]  centred units
    double* log_sum;  // log sum_i exp(log prior_i - sum of squared differences in the window / 2 sigma^2)
    double* ess;      // 1 / sum w^2
    double* trace;    // sum_i w_i |v_i - r|^2 over the channels, centred units
    int64_t* top;     // the row of the largest weight
    int8_t* path;     // [batch]  whether float32 answered (dense) or float64 (exact)
};

void local_posterior(const Request& request, const Local& local, LocalAnswer& answer);

}  // namespace geodiff
