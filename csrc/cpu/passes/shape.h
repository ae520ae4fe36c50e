// Finds the principal coordinates of the rows (products/shaping.h): subspace iteration on a sample, one pass over all.
#pragma once

#include "../products/shaping.h"
#include "../request.h"
#include "../runtime/buffer.h"

namespace geodiff {

class Along;

class Coordinates {
  public:
    // `mean` [d] in centred units; `kernels` has integer products. The same whatever the number of threads.
    Coordinates(const Table& kernels, const Rows& rows, const Stats& stats, const double* mean, int threads);

    // As `write` has left them.
    Coordinates(int64_t n, int64_t d, const char* from);
    static int64_t bytes(int64_t n, int64_t d);
    void write(char* to) const;

    Shaping view(const double* mean) const;

  private:
    Coordinates(int64_t n, int64_t d);
    template <class Self, class Visit>
    static void each_part(Self& self, Visit&& visit);  // every array and number, as memory
    void iterate(const Table& kernels, const Rows& sample, const double* mean, int threads);
    void measure(const Along& along_all, const Rows& sample);
    void fill(const Along& along_all, const Rows& rows, const Stats& stats, int threads);

    int64_t n_, count_;  // rows, directions
    Buffer<float> directions_, log_size_, chance_, unsaid_, outside_, rounded_;
    Buffer<uint8_t> coordinates_;
    Buffer<double> centre_, step_;
    double left_ = 0, mean_square_, skew_ = 0;
};

}  // namespace geodiff
