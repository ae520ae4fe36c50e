// geodiff._cpu: the CPU core for Python. Arrays come as addresses: no torch headers, so one build serves every torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "../cpu/data.h"
#include "../cpu/isa/dispatch.h"
#include "../cpu/passes/given.h"
#include "../cpu/passes/peaks.h"
#include "../cpu/runtime/checksum.h"
#include "../cpu/runtime/interrupt.h"
#include "../cpu/runtime/mapped.h"
#include "fields.h"

namespace py = pybind11;
using geodiff::Answer;
using geodiff::at;
using geodiff::Data;
using geodiff::fields;
using geodiff::Memory;
using geodiff::Query;
using geodiff::Statistics;

namespace {

// Whether a signal, such as Ctrl-C, asks the call to end; Python's exception is then set. On the main thread only, as
// Python has it.
bool interrupted() {
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
}

// Memory that is a map of a file, by the name that errors call it; an empty name: any other memory.
struct File {
    std::string path;
    geodiff::Mapped watched;

    File(const void* memory, int64_t bytes, const std::string& name)
        : path(name), watched(memory, path.empty() ? 0 : bytes) {}

    // Raises DataError where something could not be read since.
    void check() const {
        if (!watched.lost()) return;
        const py::object error = py::module_::import("geodiff.base.errors").attr("DataError");
        const char* const reason =
            "data: expected a file that stays as it is while it is mapped, found one that was cut short "
            "or cannot be read; allowed a file that nobody writes to, or a copy in memory";
        PyErr_SetObject(error.ptr(), error(path, reason).ptr());
        throw py::error_already_set();
    }
};

// Does the work of a call over memory that may be a map of a file, while other Python threads run. Raises what the
// handler of a signal raised, or DataError.
template <class Work>
void call(const void* memory, int64_t bytes, const std::string& path, Work&& work) {
    const File file(memory, bytes, path);
    bool stopped = false;
    {
        const py::gil_scoped_release release;
        const geodiff::Call current(&interrupted);
        try {
            work();
        } catch (const geodiff::Interrupted&) {
            stopped = true;
        }
    }
    if (stopped) throw py::error_already_set();
    file.check();
}

uint64_t checksum(uintptr_t memory, int64_t bytes, const std::string& path) {
    const File file(at<const void>(memory), bytes, path);
    const uint64_t sum = geodiff::checksum(at<const void>(memory), bytes);
    file.check();
    return sum;
}

// Stored rows at an address; `path`: the file that they are a map of, or empty.
geodiff::Rows rows_at(uintptr_t memory, int dtype, int64_t n, int64_t d, const std::string& path) {
    return {at<const void>(memory), geodiff::DType(dtype), n, d, !path.empty()};
}

// Looks at `count` rows more, of as many and as long ones as `found` is made for.
void look(Statistics& found, uintptr_t memory, int dtype, const std::string& path, int threads, int64_t count) {
    const geodiff::Rows rows = rows_at(memory, dtype, found.half_norm.size(), found.mean.size(), path);
    call(rows.ptr, rows.bytes(), path, [&] {
        const int64_t bad = found.look(geodiff::kernels_for(""), rows, threads, count);
        if (bad >= 0) throw std::domain_error(std::to_string(bad));
    });
}

// A data set, and the file that its rows are a map of.
class Rows {
  public:
    Rows(uintptr_t memory, int dtype, int64_t n, int64_t d, const std::string& path,
         std::shared_ptr<const Statistics> found)
        : data_(rows_at(memory, dtype, n, d, path), std::move(found)), path_(path) {}

    template <class Work>
    void run(Work&& work) const {
        call(data_.rows().ptr, data_.rows().bytes(), path_, [&] { work(data_); });
    }
    const Data& data() const { return data_; }

  private:
    const Data data_;
    const std::string path_;
};

void shape(const Rows& rows, const std::string& isa, int threads) {
    const geodiff::Table& kernels = geodiff::kernels_for(isa);
    rows.run([&](const Data& data) { data.shape(kernels, threads); });
}

void posterior(const Rows& rows, const Query& query, int64_t topk, Answer& answer) {
    rows.run([&](const Data& data) { data.posterior(query, topk, answer); });
}

using Terms = std::vector<std::pair<double, uintptr_t>>;  // factors and values
using Told = std::pair<uintptr_t, uintptr_t>;             // path and error of each query, as Spent has them

int64_t combine(const Rows& rows, const Query& query, double gain, const Terms& terms, uintptr_t out, Memory* memory,
                Told told) {
    geodiff::Combination combination{gain, {}, {}, at<void>(out)};
    for (const auto& [factor, values] : terms) {
        combination.factors.push_back(factor);
        combination.terms.push_back(at<const void>(values));
    }
    geodiff::Spent spent{at<int8_t>(told.first), at<double>(told.second), 0};
    rows.run([&](const Data& data) { data.combine(query, combination, memory, spent); });
    return spent.rows;
}

void covariance(const Rows& rows, const Query& query, uintptr_t mean, uintptr_t v, uintptr_t slope, uintptr_t with_rows,
                uintptr_t with_distance) {
    const geodiff::Direction direction{at<const double>(mean), at<const double>(v), at<const double>(slope)};
    geodiff::Covariance out{at<double>(with_rows), at<double>(with_distance)};
    rows.run([&](const Data& data) { data.covariance(query, direction, out); });
}

void draw(const Rows& rows, const Query& query, int64_t count, uintptr_t uniform, uintptr_t index) {
    rows.run([&](const Data& data) { data.draw(query, {count, at<const double>(uniform), at<int64_t>(index)}); });
}

void local(const Rows& rows, const Query& query, const geodiff::Local& asked, const geodiff::LocalAnswer& answer) {
    rows.run([&](const Data& data) { data.local(query, asked, answer); });
}

void subset(const Rows& rows, const Query& query, const geodiff::Subset& asked, uintptr_t mean, uintptr_t held) {
    rows.run([&](const Data& data) { data.subset(query, asked, at<double>(mean), at<int8_t>(held)); });
}

void inner_products(const Rows& rows, const Query& query, uintptr_t out) {
    rows.run([&](const Data& data) { data.inner_products(query, at<double>(out)); });
}

void weighted_mean(const Rows& rows, const Query& query, uintptr_t logits, uintptr_t mean) {
    rows.run([&](const Data& data) { data.weighted_mean(query, at<const double>(logits), at<double>(mean)); });
}

void squared_distances(const Rows& rows, const Query& query, uintptr_t candidates, int64_t width, uintptr_t out) {
    rows.run([&](const Data& data) {
        data.squared_distances(query, at<const int64_t>(candidates), width, at<double>(out));
    });
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Optimal denoiser on the CPU: see csrc/cpu/README.md";
    m.def("isas", &geodiff::isas, "Instruction sets compiled in and run by this machine, slowest first.");
    m.def(
        "peaks",
        [](const std::string& isa, int threads) {
            const geodiff::Table& kernels = geodiff::kernels_for(isa);
            const py::gil_scoped_release release;
            const geodiff::Peaks found = geodiff::peaks(kernels, threads);
            return std::make_tuple(found.f32, found.integers, found.read);
        },
        py::arg("isa"), py::arg("threads"),
        "Multiply-adds per second in registers, of float32 and of integers (0: none), and bytes read per second.");
    m.def(
        "add_given",
        [](const std::string& isa, int threads, uintptr_t logits, uintptr_t values, std::tuple<int64_t, int64_t> shape,
           int64_t channels, double cut, std::tuple<uintptr_t, uintptr_t, uintptr_t> sums) {
            const geodiff::Table& kernels = geodiff::kernels_for(isa);
            const auto [rows, count] = shape;
            const auto [max, mass, total] = sums;
            const py::gil_scoped_release release;
            return geodiff::add_given(kernels,
                                      {at<const double>(logits), at<const double>(values), rows, count, channels}, cut,
                                      threads, {at<double>(max), at<double>(mass), at<double>(total)});
        },
        py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("logits"), py::arg("values"), py::arg("shape"),
        py::arg("channels"), py::arg("cut"), py::arg("sums"),
        "Adds candidates with given logits to the posterior of each row, as in passes/given.h; how many were weighed.");
    m.def("checksum", &checksum, py::arg("memory"), py::arg("bytes"), py::arg("path"),
          "A sum that nearly every change of the memory changes: a look at 16 to 32 KiB of it.");
    py::class_<File>(m, "Mapped", "Watches memory that is a map of a file: what cannot be read of it is read as zeros.")
        .def(py::init([](uintptr_t memory, int64_t bytes, const std::string& path) {
                 return std::make_unique<File>(at<const void>(memory), bytes, path);
             }),
             py::arg("memory"), py::arg("bytes"), py::arg("path"))
        .def("check", &File::check, "Raises DataError where something could not be read since.");
    py::class_<Query> query(m, "Query", "Queries against rows begin..end; the caller keeps the arrays alive.");
    query.def(py::init([](const std::string& isa) {
                  Query q;
                  q.kernels = &geodiff::kernels_for(isa);
                  return q;
              }),
              py::arg("isa"));
    fields(query, "x", &Query::x, "sigma", &Query::sigma, "log_prior", &Query::log_prior, "exclude", &Query::exclude,
           "single", &Query::single, "log_prior_stride", &Query::log_prior_stride, "batch", &Query::batch, "begin",
           &Query::begin, "end", &Query::end, "tol", &Query::tol, "log_tol", &Query::log_tol, "threads",
           &Query::threads);
    py::class_<Answer> answer(m, "Answer", "Where a posterior goes: addresses of arrays that the caller keeps alive.");
    answer.def(py::init([] { return Answer{}; }));
    fields(answer, "mean", &Answer::mean, "log_sum", &Answer::log_sum, "entropy", &Answer::entropy, "ess", &Answer::ess,
           "trace", &Answer::trace, "index", &Answer::index, "weight", &Answer::weight, "path", &Answer::path,
           "mean_error", &Answer::mean_error, "log_error", &Answer::log_error);
    py::class_<geodiff::Local> local_type(m, "Local",
                                          "A local denoiser: rows as images, and the window of each query.");
    local_type.def(py::init([](const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& strides) {
                       geodiff::Local local{};
                       local.channels = shape[0], local.height = shape[1], local.width = shape[2];
                       local.of_channel = strides[0], local.of_row = strides[1], local.of_column = strides[2];
                       return local;
                   }),
                   py::arg("shape"), py::arg("strides"));
    fields(local_type, "patch", &geodiff::Local::patch, "wraps", &geodiff::Local::wraps, "mirrored",
           &geodiff::Local::mirrored, "crops", &geodiff::Local::crops);
    py::class_<geodiff::LocalAnswer> local_answer(m, "LocalAnswer", "Where its posteriors go, as in Answer.");
    local_answer.def(py::init([] { return geodiff::LocalAnswer{}; }));
    fields(local_answer, "mean", &geodiff::LocalAnswer::mean, "variance", &geodiff::LocalAnswer::variance, "log_sum",
           &geodiff::LocalAnswer::log_sum, "ess", &geodiff::LocalAnswer::ess, "top", &geodiff::LocalAnswer::top, "path",
           &geodiff::LocalAnswer::path);
    py::class_<geodiff::Subset>(m, "Subset", "How sums over subsets are made, as in passes/subset.h; steps [d, 5].")
        .def(py::init([](uintptr_t steps, uintptr_t terms, int64_t places, int64_t largest, int64_t additions,
                         double temperature, uintptr_t mirror) {
                 static_assert(sizeof(geodiff::SubsetStep) == 5 * sizeof(int32_t));
                 return geodiff::Subset{
                     {at<const geodiff::SubsetStep>(steps), at<const int32_t>(terms), places, largest, additions},
                     temperature,
                     at<const int32_t>(mirror)};
             }),
             py::arg("steps"), py::arg("terms"), py::arg("places"), py::arg("largest"), py::arg("additions"),
             py::arg("temperature"), py::arg("mirror"));
    py::class_<Statistics, std::shared_ptr<Statistics>> statistics(
        m, "Statistics",
        "What two looks at rows [n, d] find out; the arrays are its own: half_norm, away, half_away [n], mean [d].");
    statistics.def(py::init<int64_t, int64_t>(), py::arg("n"), py::arg("d"))
        .def("look", &look, py::arg("rows"), py::arg("dtype"), py::arg("path"), py::arg("threads"), py::arg("count"),
             "Looks at `count` rows more. Raises ValueError(row) for NaN or Inf.")
        .def_readwrite("seen", &Statistics::seen)
        .def_property_readonly("half_norm", [](Statistics& s) { return uintptr_t(s.half_norm.data()); })
        .def_property_readonly("half_away", [](Statistics& s) { return uintptr_t(s.half_away.data()); })
        .def_property_readonly("away", [](Statistics& s) { return uintptr_t(s.away.data()); })
        .def_property_readonly("mean", [](Statistics& s) { return uintptr_t(s.mean.data()); })
        .def_property(
            "numbers", [](const Statistics& s) { return std::array<double, 4>{s.top, s.radius2, s.model2, s.total}; },
            [](Statistics& s, const std::array<double, 4>& to) {
                s.top = to[0], s.radius2 = to[1], s.model2 = to[2], s.total = to[3];
            });
    py::class_<Memory>(m, "Memory",
                       "What calls for the same queries, as they move, leave for the next: see Data.combine.")
        .def(py::init<int64_t, bool>(), py::arg("batch"), py::arg("prepared") = false,
             "`prepared`: whether principal coordinates, where they are worth having, have been made already.")
        .def(
            "known",
            [](const Memory& memory, int64_t q) {
                const geodiff::Anchor& anchor = memory.anchor(q);
                return std::make_tuple(anchor.rows, anchor.x, anchor.sigma, anchor.floor);
            },
            py::arg("q"), "The rows of query q that can matter, and x, sigma and floor as passes/memory.h has them.")
        .def(
            "products",
            [](const Memory& memory, int64_t q) {
                const geodiff::Known::Entry& entry = memory.known().entry(q);
                const int64_t n = entry.whole ? entry.rows : 0;
                return std::make_tuple(entry.y, std::vector<double>(entry.products.get(), entry.products.get() + n),
                                       entry.digits, entry.passes);
            },
            py::arg("q"),
            "y and <y, v_i> of query q (none: not known), the digits of the latest pass and the passes so far, as "
            "products/known.h has them.");
    py::class_<Rows>(m, "Data", "A view of stored rows [n, d]; the caller keeps the memory alive and unchanged.")
        .def(py::init<uintptr_t, int, int64_t, int64_t, const std::string&, std::shared_ptr<const Statistics>>(),
             py::arg("rows"), py::arg("dtype"), py::arg("n"), py::arg("d"), py::arg("path"), py::arg("found"))
        .def("mean",
             [](const Rows& rows, uintptr_t out) {
                 const Data& data = rows.data();
                 std::copy(data.mean(), data.mean() + data.rows().d, at<double>(out));
             })
        .def("reach", [](const Rows& rows) { return rows.data().reach(); })
        .def("shape", &shape, py::arg("isa"), py::arg("threads"))
        .def_property_readonly("shaped", [](const Rows& rows) { return rows.data().shaped(); })
        .def_property_readonly("coordinates_bytes", [](const Rows& rows) { return rows.data().coordinates_bytes(); })
        .def(
            "write_coordinates", [](const Rows& rows, uintptr_t to) { rows.data().write_coordinates(at<char>(to)); },
            py::arg("to"))
        .def(
            "read_coordinates",
            [](const Rows& rows, uintptr_t from) { rows.data().read_coordinates(at<const char>(from)); },
            py::arg("from"))
        .def("posterior", &posterior, py::arg("query"), py::arg("topk"), py::arg("answer"))
        .def("combine", &combine, py::arg("query"), py::arg("gain"), py::arg("terms"), py::arg("out"),
             py::arg("memory"), py::arg("told"))
        .def("covariance", &covariance, py::arg("query"), py::arg("mean"), py::arg("v"), py::arg("slope"),
             py::arg("with_rows"), py::arg("with_distance"))
        .def("draw", &draw, py::arg("query"), py::arg("count"), py::arg("uniform"), py::arg("index"))
        .def("local", &local, py::arg("query"), py::arg("local"), py::arg("answer"))
        .def("subset", &subset, py::arg("query"), py::arg("subset"), py::arg("mean"), py::arg("held"))
        .def("inner_products", &inner_products, py::arg("query"), py::arg("out"))
        .def("weighted_mean", &weighted_mean, py::arg("query"), py::arg("logits"), py::arg("mean"))
        .def("squared_distances", &squared_distances, py::arg("query"), py::arg("candidates"), py::arg("width"),
             py::arg("out"));
}
