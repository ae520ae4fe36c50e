// geodiff._cuda: the GPU core for Python. Arrays come as device addresses, the stream as an integer: no torch headers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "../cuda/data.h"

namespace py = pybind11;
using namespace geodiff::cuda;

namespace {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

Data make_data(uintptr_t rows, int dtype, int64_t n, int64_t d, uintptr_t half_norm, double radius, double max_norm,
               double max_model_norm, int device) {
    return with_machine({at<const void>(rows),
                         geodiff::DType(dtype),
                         n,
                         d,
                         at<const double>(half_norm),
                         radius,
                         max_norm,
                         max_model_norm,
                         device,
                         {},
                         {}});
}

Arguments make_arguments(uintptr_t x, bool single, uintptr_t sigma, uintptr_t bias, int64_t bias_stride,
                         uintptr_t exclude, int64_t batch, int64_t begin, int64_t end, double tol, uintptr_t list,
                         int64_t listed) {
    return {at<const void>(x),
            single,
            at<const double>(sigma),
            at<const double>(bias),
            bias_stride,
            at<const int64_t>(exclude),
            batch,
            begin,
            end,
            tol,
            at<const int64_t>(list),
            listed};
}

void run(const Data& data, const Arguments& arguments, const Plan& plan, uintptr_t workspace, uintptr_t mean,
         uintptr_t log_sum, uintptr_t entropy, uintptr_t ess, uintptr_t mean_bias, uintptr_t path, uintptr_t stream) {
    const py::gil_scoped_release release;
    const Result result{at<double>(mean), at<double>(log_sum),   at<double>(entropy),
                        at<double>(ess),  at<double>(mean_bias), at<int8_t>(path)};
    posterior(data, arguments, plan, at<void>(workspace), result, stream);
}

void run_covariance(const Data& data, const Arguments& arguments, uintptr_t mean, uintptr_t v, uintptr_t along,
                    int64_t parts, uintptr_t sums, uintptr_t states, uintptr_t with_rows, uintptr_t with_far,
                    uintptr_t stream) {
    const py::gil_scoped_release release;
    Covariance asked{};
    asked.mean = at<const double>(mean);
    asked.v = at<const double>(v);
    asked.along = at<const double>(along);
    asked.parts = parts;
    asked.sums = at<double>(sums);
    asked.states = at<double>(states);
    asked.with_rows = at<double>(with_rows);
    asked.with_far = at<double>(with_far);
    covariance(data, arguments, asked, stream);
}

void run_masses(const Data& data, const Arguments& arguments, uintptr_t top, uintptr_t mass, uintptr_t stream) {
    const py::gil_scoped_release release;
    Masses asked{};
    asked.top = at<double>(top);
    asked.mass = at<double>(mass);
    masses(data, arguments, asked, stream);
}

void run_picks(const Data& data, const Arguments& arguments, uintptr_t top, uintptr_t lot, uintptr_t target,
               int64_t count, uintptr_t row, uintptr_t stream) {
    const py::gil_scoped_release release;
    Picks asked{};
    asked.top = at<const double>(top);
    asked.lot = at<const int64_t>(lot);
    asked.target = at<const double>(target);
    asked.count = count;
    asked.row = at<int64_t>(row);
    picks(data, arguments, asked, stream);
}

void combine_numbers(const Data& data, uintptr_t mean, double gain, const std::vector<double>& factors,
                     const std::vector<uintptr_t>& terms, uintptr_t out, int64_t size, bool single, uintptr_t stream) {
    const py::gil_scoped_release release;
    Combined combined{at<const double>(mean), {}, {}, gain, at<void>(out), size, int(terms.size()), single};
    if (terms.size() > kMostTerms || terms.size() != factors.size()) throw std::length_error("terms");
    for (size_t k = 0; k < terms.size(); ++k) {
        combined.terms[k] = at<const void>(terms[k]);
        combined.factors[k] = factors[k];
    }
    combine(data, combined, stream);
}

template <void (*Of)(const Data&, const Products&, uintptr_t)>
void pairs(const Data& data, uintptr_t x, int64_t batch, int64_t begin, int64_t end, uintptr_t out, uintptr_t stream) {
    const py::gil_scoped_release release;
    Of(data, {at<const double>(x), at<double>(out), batch, begin, end, nullptr}, stream);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "Optimal denoiser on NVIDIA GPUs: see csrc/cuda/README.md";
    m.def("runtime", &runtime, "Version of the CUDA runtime that is linked in, 13000 for 13.0.");
    m.def("driver", &driver, "Latest version of the CUDA runtime that the driver serves; 0 without one.");
    py::class_<Plan>(m, "Plan", py::module_local(), "How one call is laid out on the GPU.")
        .def_property_readonly("workspace", &Plan::workspace)
        .def_property_readonly("dense", [](const Plan& plan) { return plan.dense.group > 0; })
        .def_property_readonly("shares", [](const Plan& plan) { return plan.dense.shares; })
        .def_readonly("streams", &Plan::streams)
        .def_readonly("batch", &Plan::batch)
        .def_readonly("queries", &Plan::queries)
        .def_readonly("cluster", &Plan::cluster)
        .def_readonly("stages", &Plan::stages)
        .def_readonly("slice", &Plan::slice)
        .def_readonly("parts", &Plan::parts)
        .def_readonly("exact_parts", &Plan::exact_parts);
    m.def(
        "plan",
        [](int multiprocessors, int64_t shared, bool clusters, int dtype, int64_t n, int64_t d, int64_t batch,
           bool dense) {
            return make_plan({multiprocessors, shared, clusters, 0, dense}, geodiff::DType(dtype), n, d, batch);
        },
        py::arg("multiprocessors"), py::arg("shared"), py::arg("clusters"), py::arg("dtype"), py::arg("n"),
        py::arg("d"), py::arg("batch"), py::arg("dense") = false);
    m.def(
        "dense",
        [](int device, int dtype, int64_t d, int64_t batch) { return dense(device, geodiff::DType(dtype), d, batch); },
        py::arg("device"), py::arg("dtype"), py::arg("d"), py::arg("batch"),
        "Whether the dense pass of sm_90a serves such a call on that device, where the rows start at a multiple of "
        "16.");
    m.def(
        "streams",
        [](int device, int dtype, int64_t d, int64_t batch) {
            return streams(device, geodiff::DType(dtype), d, batch);
        },
        py::arg("device"), py::arg("dtype"), py::arg("d"), py::arg("batch"),
        "Whether the one pass over bytes serves such a call on that device; else float64 alone does.");
    py::class_<Arguments>(m, "Arguments", py::module_local(), "What is asked of a range of rows.")
        .def(py::init(&make_arguments), py::arg("x"), py::arg("single"), py::arg("sigma"), py::arg("bias"),
             py::arg("bias_stride"), py::arg("exclude"), py::arg("batch"), py::arg("begin"), py::arg("end"),
             py::arg("tol"), py::arg("list") = 0, py::arg("listed") = 0);
    m.attr("LOT") = kLot;
    py::class_<Data>(m, "Data", py::module_local(),
                     "A view of stored rows [n, d] on a GPU; the caller keeps the memory alive, unchanged.")
        .def(py::init(&make_data), py::arg("rows"), py::arg("dtype"), py::arg("n"), py::arg("d"), py::arg("half_norm"),
             py::arg("radius"), py::arg("max_norm"), py::arg("max_model_norm"), py::arg("device"))
        .def("plan", &plan, py::arg("rows"), py::arg("batch"))
        .def("posterior", &run, py::arg("arguments"), py::arg("plan"), py::arg("workspace"), py::arg("mean"),
             py::arg("log_sum"), py::arg("entropy"), py::arg("ess"), py::arg("mean_bias"), py::arg("path"),
             py::arg("stream"))
        .def("covariance", &run_covariance, py::arg("arguments"), py::arg("mean"), py::arg("v"), py::arg("along"),
             py::arg("parts"), py::arg("sums"), py::arg("states"), py::arg("with_rows"), py::arg("with_far"),
             py::arg("stream"))
        .def("masses", &run_masses, py::arg("arguments"), py::arg("top"), py::arg("mass"), py::arg("stream"))
        .def("picks", &run_picks, py::arg("arguments"), py::arg("top"), py::arg("lot"), py::arg("target"),
             py::arg("count"), py::arg("row"), py::arg("stream"))
        .def("combine", &combine_numbers, py::arg("mean"), py::arg("gain"), py::arg("factors"), py::arg("terms"),
             py::arg("out"), py::arg("size"), py::arg("single"), py::arg("stream"))
        .def("distances", &pairs<distances>, py::arg("x"), py::arg("batch"), py::arg("begin"), py::arg("end"),
             py::arg("out"), py::arg("stream"))
        .def(
            "listed_distances",
            [](const Data& data, uintptr_t x, uintptr_t list, int64_t batch, int64_t listed, uintptr_t out,
               uintptr_t stream) {
                const py::gil_scoped_release release;
                distances(data, {at<const double>(x), at<double>(out), batch, 0, listed, at<const int64_t>(list)},
                          stream);
            },
            py::arg("x"), py::arg("list"), py::arg("batch"), py::arg("listed"), py::arg("out"), py::arg("stream"))
        .def("inner_products", &pairs<inner_products>, py::arg("x"), py::arg("batch"), py::arg("begin"), py::arg("end"),
             py::arg("out"), py::arg("stream"))
        .def(
            "weighted_sum",
            [](const Data& data, uintptr_t weights, int64_t batch, int64_t begin, int64_t end, int64_t parts,
               uintptr_t out, uintptr_t stream) {
                const py::gil_scoped_release release;
                weighted_sum(data, {at<const double>(weights), at<double>(out), batch, begin, end, nullptr}, parts,
                             stream);
            },
            py::arg("weights"), py::arg("batch"), py::arg("begin"), py::arg("end"), py::arg("parts"), py::arg("out"),
            py::arg("stream"));
}
