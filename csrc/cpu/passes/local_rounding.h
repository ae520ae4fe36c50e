// What float32 rounds logits of local denoisers by.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "local_images.h"

namespace geodiff {

// Rounding errors at a pixel in units of half an ulp: of the largest logit its own, and those that rows share; and how
// far that of a row which ties with it may be off, whatever weight it was found to have.
struct LogitErrors {
    double own, shared, tied;
};

// What tells how large they are.
template <class T>
class LogitRounding {
  public:
    typedef typename LocalImagesOf<T>::Asked Asked;

    // square: E|c|^2 at each pixel; trace: the part of it about the mean.
    LogitRounding(const Request& request, const Local& local, const LocalImagesOf<T>& images, const Asked& asked,
                  const Gathered& all, const std::vector<double>& square, const std::vector<double>& trace)
        : request_(request),
          local_(local),
          images_(images),
          asked_(asked),
          all_(all),
          scale_(0.5 / (request.sigma[asked.query] * request.sigma[asked.query])),
          terms_(double(local.channels * asked.ready.window.rows() * asked.ready.window.columns())),
          left_out_(asked.ready.centred ? std::vector<double>() : images.left_out(asked)),
          from_reference_(images.from_reference(asked)),
          square_(windows(square, local.height, local.width, asked.ready.window)),
          trace_(windows(trace, local.height, local.width, asked.ready.window)),
          partial_(square.size(), -1.0) {}

    // Looks at the partial sums of the largest logit at these pixels: as a rule they are much smaller than all its
    // terms, which are taken for them else.
    void look(std::vector<int64_t> pixels) {
        const Window& w = asked_.ready.window;
        const int64_t d = request_.rows.d;
        if (asked_.ready.centred) return;
        std::sort(pixels.begin(), pixels.end(),
                  [&](int64_t a, int64_t b) { return all_.top[size_t(a)] < all_.top[size_t(b)]; });
        Buffer<double> image(d);
        std::vector<double> above(size_t((local_.height + 1) * local_.width), 0.0);  // sums of columns down to a row
        int64_t shown = -1;
        for (const int64_t p : pixels) {
            if (const int64_t top = all_.top[size_t(p)]; top != shown) {
                std::fill_n(image.data(), d, 0.0);
                request_.add_row(1, top % local_.copies, image.data());
                for (int64_t i = 0; i < local_.pixels(); ++i) {
                    double e = -asked_.variance();
                    for (int64_t c = 0; c < local_.channels; ++c) {
                        const int64_t k = local_.value(c, top >= local_.copies ? local_.mirrored_pixel(i) : i);
                        e += std::pow(images_.x(asked_.query, asked_.mirrored, c, i) - image[k], 2);
                    }
                    above[size_t(i + local_.width)] = above[size_t(i)] + e;
                }
                shown = top;
            }
            double sum = 0;
            const int64_t row = p / local_.width, column = p % local_.width;
            for (int64_t dx = -w.left; dx <= w.right; ++dx) {
                const int64_t x = w.wraps ? (column + dx + local_.width) % local_.width : column + dx;
                if (x < 0 || x >= local_.width) continue;
                const auto down_to = [&](int64_t y) { return above[size_t(y * local_.width + x)]; };
                const int64_t first = row - w.above, end = row + w.below + 1, height = local_.height;
                double add = down_to(std::min(end, height)) - down_to(std::max(first, int64_t(0)));
                if (w.wraps && first < 0) add += down_to(height) - down_to(first + height);
                if (w.wraps && end > height) add += down_to(end - height);
                sum += std::fabs(add);
            }
            partial_[size_t(p)] = scale_ * sum;
        }
    }

    LogitErrors at(int64_t pixel) const {
        const size_t p = size_t(pixel);
        // The query's rounding moves logits apart as far as rows are apart.
        const double shared = 2 * scale_ * std::sqrt(trace_[p] * from_reference_[p] / terms_);
        const double from_reference = scale_ * from_reference_[p];
        if (asked_.ready.centred) {
            // Such a row is as far from the query as the nearest one, and no further from the reference than |y| more.
            const double square = scale_ * square_[p], most = 2 * std::sqrt(from_reference) + std::sqrt(square);
            return {4 + square, shared, 4 + most * most};
        }
        const double top = request_.prior_at(asked_.query, all_.top[p] % local_.copies) - all_.max[p];
        const double terms = std::max(0.0, top + scale_ * left_out_[p]);
        const double own = 4 + (partial_[p] < 0 ? terms : std::min(terms, std::fabs(top) + partial_[p]));
        // The two rows are no further apart than twice their distance from the query.
        return {own, shared, own + 4 * std::sqrt(terms * from_reference / terms_)};
    }

  private:
    const Request& request_;
    const Local& local_;
    const LocalImagesOf<T>& images_;
    const Asked& asked_;
    const Gathered& all_;
    const double scale_, terms_;
    const std::vector<double> left_out_, from_reference_, square_, trace_;
    std::vector<double> partial_;  // below 0 where they have not been looked at
};

}  // namespace geodiff
