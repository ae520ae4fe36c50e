// Second product: weighted sums of 128 columns at a time, over a share of the rows, for a group of queries.
//
// The tensor cores take their first operand, of signed bytes, with the summed index first. Rows lie the other way in
// a tile, so they are turned about on the way into registers, and handed over from there.
#include <cmath>

#include "dense_pipeline.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

constexpr unsigned kCentre = 0x80808080u;  // u ^ 128 is u - 128 as a signed byte

// What an item of work is: a pair of column tiles, of which this block has one, by a group of queries and a share.
struct Item {
    int64_t column, group, share, begin, end;
    const uint8_t* active;

    __device__ Item(const Dense& a, int64_t item) {
        const int64_t pairs = (a.layout.column_tiles + kPair - 1) / kPair;
        column = (item % pairs * kPair + cluster_rank()) * kTile;
        group = item / pairs % a.layout.groups;
        share = a.layout.shares - 1 - item / pairs / a.layout.groups;  // what was read last is still in the cache
        begin = a.layout.row_tiles * share / a.layout.shares;
        end = a.layout.row_tiles * (share + 1) / a.layout.shares;
        active = a.work.active + group * a.layout.row_tiles;
    }
    __device__ static int64_t count(const Dense& a) {
        return (a.layout.column_tiles + kPair - 1) / kPair * a.layout.groups * a.layout.shares;
    }

    // The next tile of the share that a weight lies in, from `tile` on; `end`: none. All lanes of a warp get the same.
    __device__ int64_t next(int64_t tile) const {
        for (; tile < end; tile += 32) {
            const int64_t mine = tile + threadIdx.x % 32;
            const unsigned found = __ballot_sync(kWholeWarp, mine < end && active[mine] != 0);
            if (found) return tile + __ffs(int(found)) - 1;
        }
        return end;
    }
};

template <int Q>
__device__ void copy(const Dense& a, Ring<Q>& ring, const Item& item) {
    const uint8_t* weights = a.work.weights + item.group * a.layout.row_tiles * Group<Q>::digit_bytes;
    for (int64_t tile = item.next(item.begin); tile < item.end; tile = item.next(tile + 1))
        if (threadIdx.x % 32 == 0)
            ring.fill(&a.rows, int(item.column), int(a.begin + tile * kTile), weights + tile * Group<Q>::digit_bytes);
}

template <int Q>
__device__ void multiply(const Dense& a, Ring<Q>& ring, const Item& item) {
    constexpr int kHalf = Group<Q>::slots / 2;  // columns of a warpgroup
    const Problem& p = a.call.problem;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int half = warp / 4;
    int low[kHalf / 2] = {}, high[kHalf / 2] = {};  // sums of 2 columns among the first 16 of this warp's, and the last
    const int from[2] = {swizzled(lane, warp % 4 * 32), swizzled(lane, warp % 4 * 32 + 16)};
    for (int64_t tile = item.next(item.begin); tile < item.end; tile = item.next(tile + 1)) {
        ring.take();
        const uint8_t *rows = ring.rows(), *digits = ring.digits() + half * kHalf * kTile;
        uint4 v[4][2];
#pragma unroll
        for (int step = 0; step < 4; ++step)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint4& of = v[step][i] = turned_columns(rows + from[i] + step * 32 * kTile);
                of = {of.x ^ kCentre, of.y ^ kCentre, of.z ^ kCentre, of.w ^ kCentre};
            }
        // All at once, and nothing else meanwhile: the other warpgroup turns its rows about in that time.
        products_begin();
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            product(low, v[step][0], digits, step * 32);
            product(high, v[step][1], digits, step * 32);
        }
        products_end();
        products_wait<0>();
        ring.release();
    }
    settled(low);
    settled(high);
    const int64_t first = item.column + warp % 4 * 32 + 2 * g;
#pragma unroll
    for (int i = 0; i < kHalf / 16; ++i) {  // numbers 8 i ..: query 4 i + t of this half's
        const int64_t q = item.group * Q + half * (Q / 2) + 4 * i + t;
        if (q >= p.batch) continue;
        double* out = a.call.work.sums + (item.share * a.call.padded + q) * p.d + first;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (first + j / 2 * 16 >= p.d) continue;  // columns come by sixteen
            const int* of = (j < 2 ? low : high) + 8 * i + j % 2 * 2;
            out[j / 2 * 16 + j % 2] = double(joined_digits(of[0], of[1], of[4], of[5])) * kWeightUnit;
        }
    }
}

template <int Q>
__global__ void __launch_bounds__(kDenseThreads, 1) sums_kernel(const __grid_constant__ Dense a) {
    Ring<Q> ring(shared_memory());
    const int64_t items = Item::count(a);
    if (threadIdx.x >= kConsumers) {
        fewer_registers<kCopying>();
        if (threadIdx.x < kConsumers + 32)
            for (int64_t item = blockIdx.x / kPair; item < items; item += a.layout.clusters)
                copy(a, ring, Item(a, item));
    } else {
        more_registers<kMultiplying>();
        for (int64_t item = blockIdx.x / kPair; item < items; item += a.layout.clusters)
            multiply(a, ring, Item(a, item));
    }
    __syncwarp();
    cluster_sync();  // no block leaves while the other still copies into it
}

}  // namespace

void dense_sums(const Dense& dense, uintptr_t stream) {
    launch_clusters("dense_sums", sums_kernel<16>, sums_kernel<64>, dense, stream);
}

}  // namespace geodiff::cuda
