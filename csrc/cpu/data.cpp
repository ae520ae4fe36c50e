#include "data.h"

#include <atomic>
#include <stdexcept>
#include <utility>

#include "isa/dispatch.h"
#include "passes/plan.h"
#include "passes/posterior.h"
#include "passes/steps.h"
#include "runtime/parallel.h"

namespace geodiff {

Data::Data(const Rows& rows, std::shared_ptr<const Statistics> found)
    : rows_(rows), found_(std::move(found)), stats_(found_->stats(rows)), mean_(rows.d) {
    for (int64_t k = 0; k < rows.d; ++k) mean_[k] = (found_->mean[k] + stats_.shift) / stats_.unit;
}

namespace {

// to[i] = from[i] factor + term; false if a number is NaN or Inf.
bool affine(const VectorLoops& loops, const float* from, int64_t n, double factor, double term, double* to) {
    return loops.centre_f32(from, n, factor, term, to);
}
bool affine(const VectorLoops& loops, const double* from, int64_t n, double factor, double term, double* to) {
    return loops.centre_f64(from, n, factor, term, to);
}

// The same on several threads.
template <class From>
bool rescale(const Query& query, const From* from, int64_t n, double factor, double term, double* to) {
    std::atomic<bool> finite{true};
    in_shares(n, 4 * n, query.threads, [&](int64_t begin, int64_t end) {
        if (!affine(query.kernels->vectors, from + begin, end - begin, factor, term, to + begin)) finite = false;
    });
    return finite;
}

// out = (gain mean + offset) + sum_k factors[k] terms[k], rounded once: numbers [begin, end) of [batch, d], of which
// `mean` has the first.
template <class Real, class Combine>
void combine_as(const Combine& combine, const double* mean, double gain, double offset, const Combination& c,
                int64_t begin, int64_t end) {
    std::vector<const Real*> terms;
    for (const void* term : c.terms) terms.push_back(static_cast<const Real*>(term) + begin);
    combine(mean, gain, offset, terms.data(), c.factors.data(), int(terms.size()), end - begin,
            static_cast<Real*>(c.out) + begin);
}

// The same for the mean in centred units of `stats`.
void combine_centred(const double* mean, const Stats& stats, const Query& query, const Combination& c, int64_t begin,
                     int64_t end) {
    const double gain = c.gain / stats.unit, offset = gain * stats.shift;
    if (query.single)
        combine_as<float>(query.kernels->vectors.combine_f32, mean, gain, offset, c, begin, end);
    else
        combine_as<double>(query.kernels->vectors.combine_f64, mean, gain, offset, c, begin, end);
}

// The bound on an answer, as a part of what contract 1 measures it against.
double relative(double error, const Query& query, const Stats& stats, const double* mean, int64_t d) {
    return error / stats.scale.allowed(std::sqrt(query.kernels->vectors.shifted_square(mean, stats.shift, d)), 1);
}

}  // namespace

struct Data::Centred {
    Buffer<double> x, sigma;
    std::vector<int64_t> exclude;  // counted from the first row that is seen
    Rows rows;
    Stats stats;
    Request request;

    Centred(const Data& data, const Query& query, int64_t topk)
        : x(query.batch * data.rows_.d),
          sigma(query.batch),
          rows(data.rows_.part(query.begin, query.end)),
          stats(data.stats_.from(query.begin)),
          request{*query.kernels, rows, stats} {
        const auto centre = [&](const auto* from) {
            return rescale(query, from, query.batch * rows.d, stats.unit, -stats.shift, x.data());
        };
        if (!(query.single ? centre(static_cast<const float*>(query.x)) : centre(static_cast<const double*>(query.x))))
            throw std::domain_error("x");
        for (int64_t q = 0; q < query.batch; ++q) {
            if (!(query.sigma[q] >= kSigmaMin && query.sigma[q] <= kSigmaMax)) throw std::domain_error("sigma");
            sigma[q] = query.sigma[q] * stats.unit;
        }
        request.batch = query.batch;
        request.x = x.data();
        request.sigma = sigma.data();
        request.log_prior = query.log_prior ? query.log_prior + query.begin : nullptr;
        request.log_prior_stride = query.log_prior_stride;
        if (query.exclude) {
            for (int64_t q = 0; q < query.batch; ++q)
                exclude.push_back(query.exclude[q] < query.begin ? -1 : query.exclude[q] - query.begin);
            request.exclude = exclude.data();
        }
        request.tol = query.tol;
        request.log_tol = query.log_tol;
        request.topk = topk;
        request.threads = query.threads;
    }
    Centred(const Centred&) = delete;  // the request points into it
};

Request Data::whole(const Query& query) const {
    Request request{*query.kernels, rows_, stats_};
    request.batch = query.batch;
    request.x = static_cast<const double*>(query.x);
    request.tol = query.tol;
    request.threads = query.threads;
    return request;
}

struct Data::Coordinating final : ShapingSource {
    const Data& data;
    const Query& query;

    Coordinating(const Data& data, const Query& query) : data(data), query(query) {}
    Shaping wanted() const override {
        data.shape(*query.kernels, query.threads);
        return at_hand();
    }
    Shaping at_hand() const override { return data.shaping(query); }
    Shaping sparing(int64_t rows) const override {
        if (data.shaped()) return at_hand();
        const int64_t read = data.unspared_.fetch_add(rows, std::memory_order_relaxed) + rows;
        return read > kPassesWorthShaping * data.rows_.n ? wanted() : Shaping{};
    }
};

void Data::shape(const Table& kernels, int threads) const {
    if (rows_.dtype != DType::u8 || !kernels.integers || !worth_shaping(rows_.n, rows_.d)) return;
    const std::lock_guard<std::mutex> lock(guard_);
    if (coordinates_) return;
    coordinates_ = std::make_unique<const Coordinates>(kernels, rows_, stats_, found_->mean.data(), threads);
}

bool Data::shaped() const {
    const std::lock_guard<std::mutex> lock(guard_);
    return coordinates_ != nullptr;
}

void Data::write_coordinates(char* to) const {
    const std::lock_guard<std::mutex> lock(guard_);
    if (coordinates_) coordinates_->write(to);
}

void Data::read_coordinates(const char* from) const {
    const std::lock_guard<std::mutex> lock(guard_);
    if (!coordinates_) coordinates_ = std::make_unique<const Coordinates>(rows_.n, rows_.d, from);
}

Shaping Data::shaping(const Query& query) const {
    return shaped() ? coordinates_->view(found_->mean.data()).from(query.begin) : Shaping{};
}

void Data::posterior(const Query& query, int64_t topk, Answer& answer) const {
    const Coordinating coordinates(*this, query);
    Centred c(*this, query, topk);
    c.request.coordinates = &coordinates;
    geodiff::posterior(c.request, answer);
    rescale(query, answer.mean, query.batch * rows_.d, 1 / stats_.unit, stats_.shift / stats_.unit, answer.mean);
    for (int64_t q = 0; q < query.batch; ++q) {
        answer.trace[q] /= stats_.unit * stats_.unit;
        answer.mean_error[q] /= stats_.unit;
    }
    for (int64_t i = 0; i < query.batch * topk; ++i)
        if (answer.index[i] >= 0) answer.index[i] += query.begin;
}

std::vector<int64_t> Data::recall(const Query& query, const Combination& combination, Memory& memory,
                                  Spent& spent) const {
    const int64_t d = rows_.d;
    const Rows rows = rows_.part(query.begin, query.end);
    const Stats stats = stats_.from(query.begin);
    std::vector<uint8_t> answered(size_t(query.batch), 0);
    std::vector<int64_t> read(size_t(query.batch), 0);
    int64_t known = 0;  // rows whose distances are wanted
    for (int64_t q = 0; q < query.batch; ++q) known += int64_t(memory.anchor(q).rows.size());
    if (known == 0) return numbers_from(0, query.batch);
    one_by_one(query.batch, threads_for((known + 8 * query.batch) * d, query.threads), [&](int64_t q) {
        if (!memory.knows(q)) return;
        Buffer<double> x(d), mean(d);
        const auto centre = [&](const auto* from) {
            return affine(query.kernels->vectors, from + q * d, d, stats.unit, -stats.shift, x.data());
        };
        if (!(query.single ? centre(static_cast<const float*>(query.x)) : centre(static_cast<const double*>(query.x))))
            throw std::domain_error("x");
        if (!(query.sigma[q] >= kSigmaMin && query.sigma[q] <= kSigmaMax)) throw std::domain_error("sigma");
        const double sigma = query.sigma[q] * stats.unit;
        const int64_t exclude = query.exclude && query.exclude[q] >= query.begin ? query.exclude[q] - query.begin : -1;
        Request one{*query.kernels, rows, stats};
        one.batch = 1;
        one.x = x.data();
        one.sigma = &sigma;
        one.log_prior = query.log_prior ? query.log_prior + query.begin + q * query.log_prior_stride : nullptr;
        one.exclude = &exclude;
        one.tol = query.tol;
        one.rows_read = &read[size_t(q)];
        double log_sum, entropy, ess, mean_error, log_error;
        Answer answer{mean.data(), &log_sum, &entropy,       &ess,        nullptr,
                      nullptr,     nullptr,  spent.path + q, &mean_error, &log_error};
        if (!memory.recall(one, q, answer)) return;
        spent.error[q] = relative(mean_error, query, stats, mean.data(), d);
        combine_centred(mean.data(), stats, query, combination, q * d, (q + 1) * d);
        answered[size_t(q)] = 1;
    });
    std::vector<int64_t> open;
    for (int64_t q = 0; q < query.batch; ++q) {
        spent.rows += read[size_t(q)];
        if (!answered[size_t(q)]) open.push_back(q);
    }
    return open;
}

void Data::combine(const Query& query, const Combination& combination, Memory* memory, Spent& spent) const {
    const std::vector<int64_t> open =
        memory ? recall(query, combination, *memory, spent) : numbers_from(0, query.batch);
    if (memory && open.empty()) return;
    const Coordinating coordinates(*this, query);
    Centred c(*this, query, 0);
    c.request.coordinates = &coordinates;
    c.request.rows_read = &spent.rows;
    c.request.known = memory ? memory->known(c.rows.n) : nullptr;
    const int64_t size = query.batch * rows_.d;
    Buffer<double> mean(size), numbers(5 * query.batch);
    const auto number = [&](int64_t i) { return numbers.data() + i * query.batch; };
    Answer answer{mean.data(), number(0), number(1),  number(2), nullptr,
                  nullptr,     nullptr,   spent.path, number(3), number(4)};
    geodiff::posterior(c.request, open, answer, memory);
    const int64_t count = int64_t(open.size());
    in_shares(count, 8 * count * rows_.d, query.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t q = open[size_t(i)], first = q * rows_.d;
            const double* r = mean.data() + first;
            if (spent.error) spent.error[q] = relative(answer.mean_error[q], query, stats_, r, rows_.d);
            combine_centred(r, stats_, query, combination, first, first + rows_.d);
        }
    });
}

void Data::covariance(const Query& query, const Direction& direction, Covariance& out) const {
    const Centred c(*this, query, 0);
    const double unit = stats_.unit;
    Buffer<double> r(query.batch * rows_.d), s(query.batch);
    rescale(query, direction.mean, query.batch * rows_.d, unit, -stats_.shift, r.data());
    for (int64_t q = 0; q < query.batch; ++q) s[q] = direction.slope[q] / unit;  // c is `unit` times the model's
    geodiff::covariance(c.request, {r.data(), direction.v, s.data()}, out);
    for (int64_t i = 0; i < query.batch * rows_.d; ++i) out.with_rows[i] /= unit * unit;
    for (int64_t q = 0; q < query.batch; ++q) out.with_distance[q] /= unit * unit * unit;
}

void Data::draw(const Query& query, const Draws& draws) const {
    const Centred c(*this, query, 0);
    geodiff::draw(c.request, draws);
    for (int64_t i = 0; i < query.batch * draws.count; ++i) draws.index[i] += query.begin;
}

void Data::local(const Query& query, Local local, const LocalAnswer& answer) const {
    const Centred c(*this, query, 0);
    local.mean = found_->mean.data();
    local.copies = rows_.n;
    local_posterior(c.request, local, answer);
    rescale(query, answer.mean, query.batch * rows_.d, 1 / stats_.unit, stats_.shift / stats_.unit, answer.mean);
    for (int64_t i = 0; answer.variance && i < query.batch * rows_.d; ++i)
        answer.variance[i] /= stats_.unit * stats_.unit;
    for (int64_t i = 0; answer.top && i < query.batch * local.pixels(); ++i) answer.top[i] += query.begin;
}

void Data::subset(const Query& query, const Subset& subset, double* mean, int8_t* held) const {
    const Centred c(*this, query, 0);
    subset_posterior(c.request, subset, mean, held);
    rescale(query, mean, query.batch * rows_.d, 1 / stats_.unit, stats_.shift / stats_.unit, mean);
}

void Data::inner_products(const Query& query, double* out) const {
    const std::vector<double> one(size_t(query.batch), 1.0);
    Request request = whole(query);
    request.sigma = one.data();
    geodiff::inner_products(request, out);
    for (int64_t q = 0; q < query.batch; ++q) {  // <x, (v + shift) / unit>
        double sum = 0;
        for (int64_t k = 0; k < rows_.d; ++k) sum += request.query(q)[k];
        for (int64_t i = 0; i < rows_.n; ++i)
            out[q * rows_.n + i] = (out[q * rows_.n + i] + stats_.shift * sum) / stats_.unit;
    }
}

void Data::weighted_mean(const Query& query, const double* logits, double* mean) const {
    geodiff::weighted_mean(whole(query), logits, mean);
    rescale(query, mean, query.batch * rows_.d, 1 / stats_.unit, stats_.shift / stats_.unit, mean);
}

void Data::squared_distances(const Query& query, const int64_t* candidates, int64_t width, double* out) const {
    Buffer<double> centred(query.batch * rows_.d);
    Request request = whole(query);
    rescale(query, request.x, query.batch * rows_.d, stats_.unit, -stats_.shift, centred.data());
    request.x = centred.data();
    geodiff::squared_distances(request, candidates, width, out);
    for (int64_t i = 0; i < query.batch * width; ++i) out[i] /= stats_.unit * stats_.unit;
}

}  // namespace geodiff
