// Products of queries in floating point: how queries are packed, what rounding may do, and the products.
#include <cmath>

#include "../runtime/parallel.h"
#include "bounds.h"
#include "logits.h"

namespace geodiff {
namespace {

constexpr int64_t kOfStep = 17, kOfPieces = 3;

}  // namespace

void Logits::pack_floats(const Request& request, const int64_t* which) {
    const int64_t d = rows_.d, dp = padded(d);
    const FloatLayout& layout = kernels_.floats;
    const int64_t side_by_side = wide_ ? layout.lanes / 2 : layout.lanes;
    const int64_t packed = (count_ + side_by_side - 1) / side_by_side * side_by_side * d;
    if (!wide_) tiles_ = request.float_tiles(count_);
    if (wide_)
        queries64_ = Buffer<double>(packed, true);
    else if (tiles_)
        pieces_ = Buffer<char>(tiles_->packed_bytes(count_, d), true);
    else
        queries32_ = Buffer<float>(direct() ? count_ * dp : packed, true);
    // Certain: n rounded additions are off by n u |x||v| (Cauchy-Schwarz on sum |x_k v_k|). As independent errors, each
    // addition of lane j errs by at most u |x_j||v_j|, with x_j and v_j what the lane sees of them, so that the
    // variance is at most n u^2 max_j |x_j|^2 |v|^2.
    // Sums of kFold columns are then added, kFoldBlocks of them: the squared lengths of what such an addition sees are
    // up to kFoldBlocks times those of one block, so that it counts for so many.
    const int64_t fold = direct() ? kFewFold : kFold, lanes = direct() ? layout.few_lanes : 1;
    // Of tiles, each step's sum is made of two, of 16 columns each, and added to those of the steps before in its
    // chunk: 17 additions see a step, and as many as a chunk has steps the chunk. What small pieces add is in `terms`
    // alone.
    const auto part_of_tiles = [&](const double* x) {
        const double of_step = kernels_.vectors.size(x, d, tiles_->step, false).part,
                     of_chunk = kernels_.vectors.size(x, d, tiles_->chunk, false).part;
        return kOfStep * of_step + double(tiles_->chunk / tiles_->step) * of_chunk;
    };
    const int64_t of_tiles = tiles_ ? kOfStep + tiles_->chunk / tiles_->step + kOfPieces : 0;
    const int64_t terms = tiles_ ? of_tiles : fold / lanes + (direct() ? 0 : kFoldBlocks * kFoldBlocks);
    const double unit = wide_ ? 0x1p-53 * 2 : kUnitRoundoff;
    in_shares(count_, 2 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const double* x = request.query(which[i]);
            const VectorSize found = kernels_.vectors.size(x, d, fold, direct());
            const double part = tiles_ ? part_of_tiles(x) : found.part;
            length_[size_t(i)] = std::sqrt(found.square);
            const int64_t at = i / side_by_side * side_by_side * d + i % side_by_side;
            if (tiles_)
                tiles_->pack(x, d, i, pieces_.data());
            else if (wide_)
                for (int64_t k = 0; k < d; ++k) queries64_[at + k * side_by_side] = x[k];
            else if (direct())
                kernels_.vectors.narrow(x, d, queries32_.data() + i * dp);
            else
                for (int64_t k = 0; k < d; ++k) queries32_[at + k * side_by_side] = float(x[k]);
            const double size = unit * stats_.max_norm * inv_sigma2_[size_t(i)];
            row_error_[size_t(i)] = 0;
            base_error_[size_t(i)] = double(terms + 2) * size * std::sqrt(found.square);
            query_step_[size_t(i)] = unit * found.largest;
            logit_noise_[size_t(i)] =
                float_noise(tiles_ ? 1 : terms, std::sqrt(part), stats_.max_norm, request.sigma[which[i]], unit);
        }
    });
}

void Logits::multiply_floats(Work& w, int64_t first, int R, int64_t b, int64_t tile) const {
    const int64_t size = block_size(b), start = b * block(), dp = padded(rows_.d);
    double* l = w.logits.data();
    const void* rows = rows_.row(first);
    if (wide_) {
        kernels_.dot_f64(rows, rows_.dtype, rows_.d, R, queries64_.data() + start * rows_.d, int(size), l, tile);
    } else if (tiles_) {
        tiles_->dot(rows, rows_.dtype, rows_.d, R, pieces_.data(), int(size), l, tile);
    } else if (direct()) {
        for (int64_t q = 0; q < size; ++q) std::fill(l + q * tile, l + q * tile + R, 0.0);
        kernels_.dot_few(rows, rows_.dtype, rows_.d, R, queries32_.data() + start * dp, dp, int(size), l, tile);
    } else {
        kernels_.dot_f32(rows, rows_.dtype, rows_.d, R, queries32_.data() + start * rows_.d, int(size), l, tile);
    }
}

}  // namespace geodiff
