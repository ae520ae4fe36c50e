#include "given.h"

#include <atomic>

#include "../runtime/parallel.h"

namespace geodiff {

int64_t add_given(const Table& kernels, const GivenLogits& given, double cut, int threads, const GivenSums& to) {
    const int64_t count = given.count, channels = given.channels;
    std::atomic<int64_t> weighed{0};
    constexpr int64_t kExp = 16;  // multiply-adds
    in_shares(given.rows, given.rows * count * (channels + kExp), threads, [&](int64_t begin, int64_t end) {
        int64_t mine = 0;
        for (int64_t i = begin; i < end; ++i)
            mine += kernels.subset.given(given.logits + i * count, given.values, count, channels, cut,
                                         {to.max + i, to.mass + i, to.total + i * channels});
        weighed += mine;
    });
    return weighed;
}

}  // namespace geodiff
