#include "lane_digits.h"

#include <algorithm>
#include <cstring>

namespace geodiff {
namespace {

constexpr int kPieceBits = 16, kMostBits = 32;

}  // namespace

LaneDigits::LaneDigits(const IntegerProducts& integers, int64_t count, int64_t d, int parts)
    : integers_(integers),
      count_(count),
      d_(d),
      columns_((d + 3) / 4 * 4),
      lanes_(integers.layout.side_by_side),
      groups_((count + lanes_ - 1) / lanes_),
      parts_(parts),
      in_piece_(integers.layout.digits(kPieceBits)) {
    const int64_t bytes = integers.layout.digit_bits / 8;
    for (int first = 0; first < parts; first += in_piece_)
        pieces_.push_back({std::min(in_piece_, parts - first),
                           Buffer<char>(slots() * columns_ * in_piece_ * bytes, true),
                           std::vector<int32_t>(size_t(slots() * in_piece_), 0)});
}

double LaneDigits::place(int64_t i, const double* x, double step, const float* up, float* lost) {
    const IntegerLayout& layout = integers_.layout;
    const int64_t bytes = layout.digit_bits / 8, unit = 4 / bytes, dp = padded(d_), group = i / lanes_,
                  lane = i % lanes_;
    alignas(64) char apart[2 * kTail * kMostBits / 8];  // [dp/64][parts][64]
    int64_t total[kMostBits / 8] = {};
    const double left = integers_.place(x, d_, {step, up, parts_, 0, lost}, {apart, total, parts_, dp});
    const int64_t row = in_piece_ * lanes_ * 4;  // bytes of the dwords of all lanes
    for (int part = 0; part < parts_; ++part) {
        Piece& piece = pieces_[size_t(part / in_piece_)];
        const int64_t first = group * in_piece_ + part % in_piece_;
        piece.start[size_t(first * lanes_ + lane)] = int32_t(-128 * total[part]);
        char* to = piece.digits.data() + group * columns_ / unit * row + part % in_piece_ * lanes_ * 4;
        for (int64_t block = 0; block < columns_; block += kPad) {
            const char* from = apart + (block * parts_ + part * kPad) * bytes;
            const char* end = from + std::min(columns_ - block, kPad) * bytes;
            if (layout.lane_pairs) {
                for (; from < end; from += 4, to += row) std::memcpy(to + lane * 4, from, 4);
            } else {
                for (; from < end; from += 4, to += row) {
                    std::memcpy(to + lane * 2, from, 2);
                    std::memcpy(to + (lanes_ + lane) * 2, from + 2, 2);
                }
            }
        }
    }
    return left;
}

void LaneDigits::multiply(const ShortRows& rows, double* S, int64_t lds) const {
    for (int p = 0; p < pieces(); ++p) integers_.dot_lanes(rows, piece(p), int(count_), S + p * lds, pieces() * lds);
}

DigitSums LaneDigits::sums(const double* S, int64_t lds, int64_t q, double step) const {
    // Digits that the last piece lacks are 0.
    const int missing = pieces() * in_piece_ - parts_;
    const double unit = step / double(int64_t(1) << (missing * integers_.layout.digit_bits));
    return {S + q * pieces() * lds, lds, pieces(), unit, double(1 << kPieceBits)};
}

}  // namespace geodiff
