#include "screen_known.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "../products/bounds.h"
#include "../products/logits.h"
#include "candidates.h"
#include "refine.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr double kShare = 0.5;  // of what r may be off by, that rows which are left out may take: all else is exact
constexpr double kSpare = 6;    // further below the best than such a row by itself might lie, since there are many
// Nats that bounds may leave open: beyond, a digit of what is new says more, and what memory then keeps serves longer.
constexpr double kBlurred = 8;

// The rows that a query needs, and what the others can do.
struct Listed {
    std::vector<int64_t> rows;  // rising
    double margin = 0;          // to the logits of all others
    double left_out = 0;        // their weight beside the largest, at most, where it is counted
};

class KnownScreen {
  public:
    KnownScreen(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which, bool counts,
                int64_t room)
        : request_(request),
          which_(which),
          count_(int64_t(which.size())),
          room_(room),
          tile_(tile_rows(request, count_)),
          cut_(request.cut()),
          counts_(counts),
          logits_(request.shaped(shaping), which.data(), count_, Precision::known) {
        struct Worker {
            Logits::Work logits;
            Buffer<float> error;
        };
        const auto worker = [&] { return Worker{logits_.work(tile_), Buffer<float>(tile_)}; };
        const auto nothing = [&] {
            std::vector<Candidates> share;
            for (const int64_t q : which_) {
                const double cut = counts_ ? std::min(cut_, kSpare - std::log(most_left_out(q))) : cut_;
                const Candidates::Wanted wanted{cut, Memory::kWidth * cut_, 0, counts_};
                share.emplace_back(request_.kernels, wanted, 1, 0);
            }
            return share;
        };
        const auto visit = [&](Worker& mine, std::vector<Candidates>& share, const Tile& t) {
            for (int64_t b = 0; b < logits_.blocks(); ++b) {
                logits_.multiply(mine.logits, t.first, t.R, b, tile_);
                for (int64_t i = b * kQueryBlock; i < b * kQueryBlock + logits_.block_size(b); ++i) {
                    if (share[size_t(i)].given_up()) continue;
                    const double* l = logits_.logits(mine.logits, t.first, t.R, i, tile_);
                    logits_.errors_of_known(i, t.first, t.R, mine.error.data());
                    share[size_t(i)].offer(l, mine.error.data(), t.first, t.R);
                }
            }
        };
        const Rows bytes{shaping.coordinates, DType::u8, request.rows.n, kDirections};
        shares_ =
            over_tiles(bytes, Pieces(request.rows.n, tile_, request.threads, true), tile_, worker, nothing, visit);
    }

    // Nothing where too many rows may matter.
    std::optional<Listed> list(int64_t i) const {
        Listed found;
        std::vector<const Candidates*> parts;
        for (const auto& share : shares_) parts.push_back(&share[size_t(i)]);
        const Candidates::Ends ends = Candidates::ends(parts);
        if (!ends.whole) return {};
        std::vector<Candidate> candidates;
        for (const Candidates* part : parts) {
            part->collect(ends.least, candidates);
            if (counts_) found.left_out += part->left_out(ends.least, ends.best);
        }
        const double most = most_left_out(which_[size_t(i)]);
        if (found.left_out > most) return {};
        // Those that are needed, and as many more as there is room for.
        std::sort(candidates.begin(), candidates.end(),
                  [](const Candidate& a, const Candidate& b) { return a.upper > b.upper; });
        found.margin = ends.width;
        for (; int64_t(candidates.size()) > std::max<int64_t>(room_, 1); candidates.pop_back()) {
            const double upper = candidates.back().upper, weight = counts_ ? std::exp(upper - ends.best) : 0;
            if (counts_ ? found.left_out + weight > most : upper >= ends.best - cut_) break;
            found.left_out += weight;
            found.margin = ends.best - upper;
        }
        for (const Candidate& c : candidates) found.rows.push_back(c.row);
        std::sort(found.rows.begin(), found.rows.end());
        return found;
    }

    // How far rows that are left out move r: from its place towards theirs, no further apart than the data are wide.
    double moved(double left_out) const { return left_out * 2 * request_.stats.scale.radius; }
    // Whether r is as long as `list` supposed, so that they may.
    bool holds(const Listed& found, const double* mean) const {
        const Stats& stats = request_.stats;
        const double square = request_.kernels.vectors.shifted_square(mean, stats.shift, request_.rows.d);
        return moved(found.left_out) <= stats.scale.allowed(std::sqrt(square), request_.tol);
    }

  private:
    double most_left_out(int64_t q) const {
        return kShare * request_.expected_allowance(q) / (2 * std::max(request_.stats.scale.radius, 1e-300));
    }

    const Request& request_;
    const std::vector<int64_t>& which_;
    const int64_t count_, room_, tile_;
    const double cut_;
    const bool counts_;
    const Logits logits_;
    std::vector<std::vector<Candidates>> shares_;
};

}  // namespace

bool may_screen_known(const Request& request, const Shaping& shaping, int64_t q) {
    const Known::Entry& entry = request.known->entry(q);
    if (!entry.whole || !Known::Entry::worth_trying(request.sigma[q], entry.crowded)) return false;
    const double* x = request.query(q);
    const VectorLoops& vectors = request.kernels.vectors;
    const double factor = entry.factor(vectors, x), length = request.length(q),
                 known = factor * vectors.length(entry.y.data(), request.rows.d);
    // As if what is new were spread over directions as the rows are.
    const double rest = std::sqrt(std::max(0.0, length * length - known * known));
    const double error = rest * shaping.left / std::sqrt(shaping.mean_square);
    return error <= kBlurred * request.sigma[q] * request.sigma[q];
}

std::vector<int64_t> screen_known(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which,
                                  Answer& answer, Memory& memory, bool wide) {
    std::vector<int64_t> open, queries;
    if (which.empty()) return open;
    const KnownScreen screen(request, shaping, which, request.known->shaped && !wide, memory.room());
    std::vector<Listed> found;
    std::vector<std::vector<int64_t>> lists;
    for (int64_t i = 0; i < int64_t(which.size()); ++i) {
        std::optional<Listed> listed = screen.list(i);
        if (!listed) {
            request.known->entry(which[size_t(i)]).crowded = request.sigma[which[size_t(i)]];
            open.push_back(which[size_t(i)]);
            continue;
        }
        queries.push_back(which[size_t(i)]);
        lists.push_back(std::move(listed->rows));
        found.push_back(std::move(*listed));
    }
    refine(request, queries, lists, request.cut(), Path::screened, answer);
    for (size_t i = 0; i < found.size(); ++i) {
        const Listed& listed = found[i];
        const int64_t q = queries[i];
        if (!screen.holds(listed, answer.mean + q * request.rows.d)) {
            open.push_back(q);
            continue;
        }
        answer.mean_error[q] += screen.moved(listed.left_out);
        answer.log_error[q] += listed.left_out;
        memory.keep(request, q, std::move(lists[i]), listed.margin, answer.log_sum[q]);
    }
    return open;
}

}  // namespace geodiff
