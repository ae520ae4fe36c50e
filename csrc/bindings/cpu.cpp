// geodiff._cpu: the CPU core for Python. Arrays come as addresses: no torch headers, so one build serves every torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>

#include "../cpu/data.h"
#include "../cpu/isa/dispatch.h"

namespace py = pybind11;
using geodiff::Answer;
using geodiff::Data;
using geodiff::Query;

namespace {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// A field that Python sees as an address.
template <class Class, class Field>
void address(py::class_<Class>& type, const char* name, Field Class::* field) {
    type.def_property(
        name, [field](const Class& c) { return reinterpret_cast<uintptr_t>(c.*field); },
        [field](Class& c, uintptr_t value) { c.*field = reinterpret_cast<Field>(value); });
}

void posterior(const Data& data, const Query& query, int64_t topk, Answer& answer) {
    const py::gil_scoped_release release;
    data.posterior(query, topk, answer);
}

void combine(const Data& data, const Query& query, double gain, const std::vector<double>& factors,
             const std::vector<uintptr_t>& terms, uintptr_t out, uintptr_t path) {
    const py::gil_scoped_release release;
    geodiff::Combination combination{gain, factors, {}, at<void>(out)};
    for (const uintptr_t term : terms) combination.terms.push_back(at<const void>(term));
    data.combine(query, combination, at<int8_t>(path));
}

void covariance(const Data& data, const Query& query, uintptr_t mean, uintptr_t v, uintptr_t slope, uintptr_t with_rows,
                uintptr_t with_distance) {
    const py::gil_scoped_release release;
    geodiff::Covariance out{at<double>(with_rows), at<double>(with_distance)};
    data.covariance(query, {at<const double>(mean), at<const double>(v), at<const double>(slope)}, out);
}

void draw(const Data& data, const Query& query, int64_t count, uintptr_t uniform, uintptr_t index) {
    const py::gil_scoped_release release;
    data.draw(query, {count, at<const double>(uniform), at<int64_t>(index)});
}

void inner_products(const Data& data, const Query& query, uintptr_t out) {
    const py::gil_scoped_release release;
    data.inner_products(query, at<double>(out));
}

void weighted_mean(const Data& data, const Query& query, uintptr_t logits, uintptr_t mean) {
    const py::gil_scoped_release release;
    data.weighted_mean(query, at<const double>(logits), at<double>(mean));
}

void squared_distances(const Data& data, const Query& query, uintptr_t candidates, int64_t width, uintptr_t out) {
    const py::gil_scoped_release release;
    data.squared_distances(query, at<const int64_t>(candidates), width, at<double>(out));
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Optimal denoiser on the CPU: see csrc/cpu/README.md";
    m.def("isas", &geodiff::isas, "Instruction sets compiled in and run by this machine, slowest first.");
    py::class_<Query> query(m, "Query", "Queries against rows begin..end; the caller keeps the arrays alive.");
    query.def(py::init([](const std::string& isa) {
                  Query q;
                  q.kernels = &geodiff::kernels_for(isa);
                  return q;
              }),
              py::arg("isa"));
    address(query, "x", &Query::x);
    address(query, "sigma", &Query::sigma);
    address(query, "log_prior", &Query::log_prior);
    address(query, "exclude", &Query::exclude);
    query.def_readwrite("single", &Query::single)
        .def_readwrite("log_prior_stride", &Query::log_prior_stride)
        .def_readwrite("batch", &Query::batch)
        .def_readwrite("begin", &Query::begin)
        .def_readwrite("end", &Query::end)
        .def_readwrite("tol", &Query::tol)
        .def_readwrite("threads", &Query::threads);
    py::class_<Answer> answer(m, "Answer", "Where a posterior goes: addresses of arrays that the caller keeps alive.");
    answer.def(py::init([] { return Answer{}; }));
    address(answer, "mean", &Answer::mean);
    address(answer, "log_sum", &Answer::log_sum);
    address(answer, "entropy", &Answer::entropy);
    address(answer, "ess", &Answer::ess);
    address(answer, "trace", &Answer::trace);
    address(answer, "index", &Answer::index);
    address(answer, "weight", &Answer::weight);
    address(answer, "path", &Answer::path);
    py::class_<Data>(m, "Data", "A view of stored rows [n, d]; the caller keeps the memory alive and unchanged.")
        .def(py::init([](uintptr_t rows, int dtype, int64_t n, int64_t d, int threads) {
                 const py::gil_scoped_release release;
                 return std::make_unique<Data>(geodiff::Rows{at<const void>(rows), geodiff::DType(dtype), n, d},
                                               threads);
             }),
             py::arg("rows"), py::arg("dtype"), py::arg("n"), py::arg("d"), py::arg("threads"))
        .def("mean", [](const Data& data,
                        uintptr_t out) { std::copy(data.mean(), data.mean() + data.rows().d, at<double>(out)); })
        .def("posterior", &posterior, py::arg("query"), py::arg("topk"), py::arg("answer"))
        .def("combine", &combine, py::arg("query"), py::arg("gain"), py::arg("factors"), py::arg("terms"),
             py::arg("out"), py::arg("path"))
        .def("covariance", &covariance, py::arg("query"), py::arg("mean"), py::arg("v"), py::arg("slope"),
             py::arg("with_rows"), py::arg("with_distance"))
        .def("draw", &draw, py::arg("query"), py::arg("count"), py::arg("uniform"), py::arg("index"))
        .def("inner_products", &inner_products, py::arg("query"), py::arg("out"))
        .def("weighted_mean", &weighted_mean, py::arg("query"), py::arg("logits"), py::arg("mean"))
        .def("squared_distances", &squared_distances, py::arg("query"), py::arg("candidates"), py::arg("width"),
             py::arg("out"));
}
