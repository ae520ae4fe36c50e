// geodiff._cpu: the CPU core for Python. Arrays come as addresses: no torch headers, so one build serves every torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <stdexcept>

#include "../cpu/data.h"
#include "../cpu/isa.h"

namespace py = pybind11;
using geodiff::Answer;
using geodiff::Data;
using geodiff::Query;

namespace {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

Query query(uintptr_t x, bool single, uintptr_t sigma, uintptr_t bias, int64_t bias_stride, int64_t batch,
            int64_t begin, int64_t end, double tol, int threads) {
    return {at<const void>(x),
            single,
            at<const double>(sigma),
            at<const double>(bias),
            bias_stride,
            batch,
            begin,
            end,
            tol,
            threads};
}

void posterior(const Data& data, const Query& query, const std::string& isa, int64_t topk, uintptr_t mean,
               uintptr_t log_sum, uintptr_t entropy, uintptr_t ess, uintptr_t trace, uintptr_t index, uintptr_t weight,
               uintptr_t path) {
    const py::gil_scoped_release release;
    Answer answer{at<double>(mean),  at<double>(log_sum), at<double>(entropy), at<double>(ess),
                  at<double>(trace), at<int64_t>(index),  at<double>(weight),  at<int8_t>(path)};
    data.posterior(geodiff::kernels_for(isa), query, topk, answer);
}

void combine(const Data& data, const Query& query, const std::string& isa, uintptr_t out, double gain,
             const std::vector<double>& factors, const std::vector<uintptr_t>& terms, uintptr_t path) {
    const py::gil_scoped_release release;
    geodiff::Combination combination{gain, factors, {}, at<void>(out)};
    for (const uintptr_t term : terms) combination.terms.push_back(at<const void>(term));
    data.combine(geodiff::kernels_for(isa), query, combination, at<int8_t>(path));
}

void covariance(const Data& data, const Query& query, const std::string& isa, uintptr_t mean, uintptr_t v,
                uintptr_t slope, uintptr_t with_rows, uintptr_t with_distance) {
    const py::gil_scoped_release release;
    data.covariance(geodiff::kernels_for(isa), query, at<const double>(mean), at<const double>(v),
                    at<const double>(slope), at<double>(with_rows), at<double>(with_distance));
}

void draw(const Data& data, const Query& query, const std::string& isa, int64_t count, uintptr_t uniform,
          uintptr_t index) {
    const py::gil_scoped_release release;
    data.draw(geodiff::kernels_for(isa), query, count, at<const double>(uniform), at<int64_t>(index));
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Optimal denoiser on the CPU: see csrc/cpu/README.md";
    m.def("isas", &geodiff::isas, "Instruction sets compiled in and run by this machine, slowest first.");
    py::class_<Data>(m, "Data", "A view of stored rows [n, d]; the caller keeps the memory alive and unchanged.")
        .def(py::init([](uintptr_t rows, int dtype, int64_t n, int64_t d, int threads) {
                 const py::gil_scoped_release release;
                 return std::make_unique<Data>(at<const void>(rows), geodiff::DType(dtype), n, d, threads);
             }),
             py::arg("rows"), py::arg("dtype"), py::arg("n"), py::arg("d"), py::arg("threads"))
        .def("mean", [](const Data& data,
                        uintptr_t out) { std::copy(data.mean(), data.mean() + data.rows().d, at<double>(out)); })
        .def(
            "inner_products",
            [](const Data& data, const std::string& isa, uintptr_t x, int64_t batch, int threads, uintptr_t out) {
                const py::gil_scoped_release release;
                data.inner_products(geodiff::kernels_for(isa), at<const double>(x), batch, threads, at<double>(out));
            },
            py::arg("isa"), py::arg("x"), py::arg("batch"), py::arg("threads"), py::arg("out"))
        .def(
            "weighted_mean",
            [](const Data& data, const std::string& isa, uintptr_t logits, int64_t batch, double tol, int threads,
               uintptr_t mean) {
                const py::gil_scoped_release release;
                data.weighted_mean(geodiff::kernels_for(isa), at<const double>(logits), batch, tol, threads,
                                   at<double>(mean));
            },
            py::arg("isa"), py::arg("logits"), py::arg("batch"), py::arg("tol"), py::arg("threads"), py::arg("mean"))
        .def(
            "squared_distances",
            [](const Data& data, const std::string& isa, uintptr_t x, uintptr_t candidates, int64_t batch,
               int64_t width, int threads, uintptr_t out) {
                const py::gil_scoped_release release;
                data.squared_distances(geodiff::kernels_for(isa), at<const double>(x), at<const int64_t>(candidates),
                                       batch, width, threads, at<double>(out));
            },
            py::arg("isa"), py::arg("x"), py::arg("candidates"), py::arg("batch"), py::arg("width"), py::arg("threads"),
            py::arg("out"))
        .def("posterior", &posterior, py::arg("query"), py::arg("isa"), py::arg("topk"), py::arg("mean"),
             py::arg("log_sum"), py::arg("entropy"), py::arg("ess"), py::arg("trace"), py::arg("index"),
             py::arg("weight"), py::arg("path"))
        .def("combine", &combine, py::arg("query"), py::arg("isa"), py::arg("out"), py::arg("gain"), py::arg("factors"),
             py::arg("terms"), py::arg("path"))
        .def("covariance", &covariance, py::arg("query"), py::arg("isa"), py::arg("mean"), py::arg("v"),
             py::arg("slope"), py::arg("with_rows"), py::arg("with_distance"))
        .def("draw", &draw, py::arg("query"), py::arg("isa"), py::arg("count"), py::arg("uniform"), py::arg("index"));
    py::class_<Query>(m, "Query", "Queries against rows begin..end; the caller keeps the arrays alive.")
        .def(py::init(&query), py::arg("x"), py::arg("single"), py::arg("sigma"), py::arg("bias"),
             py::arg("bias_stride"), py::arg("batch"), py::arg("begin"), py::arg("end"), py::arg("tol"),
             py::arg("threads"));
}
