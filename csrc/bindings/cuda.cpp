// geodiff._cuda: the GPU core for Python. Arrays come as device addresses, the stream as an integer: no torch headers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>
#include <utility>

#include "../cuda/data.h"
#include "fields.h"

namespace py = pybind11;
using namespace geodiff::cuda;
using geodiff::at;
using geodiff::fields;

namespace {

using Shape = std::tuple<int64_t, int64_t>;               // [n, d]
using Radii = std::tuple<double, double, double>;         // of all rows around their mean, and around 0 in both units
using Terms = std::vector<std::pair<double, uintptr_t>>;  // factors and numbers
using Unlocked = py::call_guard<py::gil_scoped_release>;  // other Python threads run meanwhile

Data make_data(uintptr_t rows, int dtype, Shape shape, uintptr_t half_norm, Radii radii, int device, int pass) {
    const auto [n, d] = shape;
    const auto [radius, max_norm, max_model_norm] = radii;
    Data data{at<const void>(rows),
              geodiff::DType(dtype),
              n,
              d,
              at<const double>(half_norm),
              radius,
              max_norm,
              max_model_norm,
              device,
              {},
              {},
              {}};
    data.machine.pass = Pass(pass);
    return with_machine(data);
}

Plan plan_on(const Machine& machine, int dtype, Shape shape, int64_t batch) {
    return make_plan(machine, geodiff::DType(dtype), std::get<0>(shape), std::get<1>(shape), batch);
}

void take_terms(Combined& combined, const Terms& terms) {
    if (terms.size() > kMostTerms) throw std::length_error("terms");
    combined.count = int(terms.size());
    for (size_t k = 0; k < terms.size(); ++k) {
        combined.factors[k] = terms[k].first;
        combined.terms[k] = at<const void>(terms[k].second);
    }
}

void run(const Data& data, const Arguments& arguments, const Plan& plan, uintptr_t workspace, const Result& result,
         uintptr_t stream) {
    posterior(data, arguments, plan, at<void>(workspace), result, stream);
}

// A struct whose fields Python sets; all are zero until then.
template <class Struct>
py::class_<Struct> empty(py::module_& m, const char* name, const char* what) {
    py::class_<Struct> type(m, name, py::module_local(), what);
    type.def(py::init([] { return Struct{}; }));
    return type;
}

// What a call takes and where it leaves what it found, as the headers of csrc/cuda have it.
void define_fields(py::module_& m) {
    auto arguments = empty<Arguments>(m, "Arguments", "What is asked of a range of rows.");
    fields(arguments, "x", &Arguments::x, "sigma", &Arguments::sigma, "bias", &Arguments::bias, "exclude",
           &Arguments::exclude, "list", &Arguments::list, "single", &Arguments::single, "bias_stride",
           &Arguments::bias_stride, "batch", &Arguments::batch, "begin", &Arguments::begin, "end", &Arguments::end,
           "tol", &Arguments::tol, "listed", &Arguments::listed);
    auto result = empty<Result>(m, "Result", "Where a posterior goes.");
    fields(result, "mean", &Result::mean, "log_sum", &Result::log_sum, "entropy", &Result::entropy, "ess", &Result::ess,
           "mean_bias", &Result::mean_bias, "path", &Result::path);
    auto covariance = empty<Covariance>(m, "Covariance", "Along what covariances are asked for, and where they go.");
    fields(covariance, "mean", &Covariance::mean, "v", &Covariance::v, "along", &Covariance::along, "sums",
           &Covariance::sums, "states", &Covariance::states, "with_rows", &Covariance::with_rows, "with_far",
           &Covariance::with_far, "parts", &Covariance::parts);
    auto masses = empty<Masses>(m, "Masses", "Where the masses of lots of rows go.");
    fields(masses, "top", &Masses::top, "mass", &Masses::mass);
    auto picks = empty<Picks>(m, "Picks", "The lots that draws have fallen into, and where their rows go.");
    fields(picks, "top", &Picks::top, "lot", &Picks::lot, "target", &Picks::target, "row", &Picks::row, "count",
           &Picks::count);
    auto combined = empty<Combined>(m, "Combined", "out = gain mean + the sum of (factor, values) in `terms`.");
    fields(combined, "mean", &Combined::mean, "out", &Combined::out, "gain", &Combined::gain, "size", &Combined::size,
           "single", &Combined::single);
    combined.def_property("terms", nullptr, &take_terms);
    auto products = empty<Products>(m, "Products", "A number for each query and row, or what is made of such.");
    fields(products, "numbers", &Products::numbers, "out", &Products::out, "list", &Products::list, "batch",
           &Products::batch, "begin", &Products::begin, "end", &Products::end);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "Optimal denoiser on NVIDIA GPUs: see csrc/cuda/README.md";
    m.def("runtime", &runtime, "Version of the CUDA runtime that is linked in, 13000 for 13.0.");
    m.def("driver", &driver, "Latest version of the CUDA runtime that the driver serves; 0 without one.");
    py::class_<Machine>(m, "Machine", py::module_local(), "What a GPU offers.")
        .def(py::init([](int multiprocessors, int64_t shared, bool clusters, bool dense, int pass) {
                 return Machine{multiprocessors, shared, clusters, 0, dense, Pass(pass)};
             }),
             py::arg("multiprocessors"), py::arg("shared"), py::arg("clusters"), py::arg("dense") = false,
             py::arg("pass_") = 0);
    py::class_<Plan>(m, "Plan", py::module_local(), "How one call is laid out on the GPU.")
        .def_property_readonly("workspace", &Plan::workspace)
        .def_property_readonly("dense", [](const Plan& plan) { return plan.dense.group > 0 && !plan.dense.cluster; })
        .def_property_readonly("fused", [](const Plan& plan) { return plan.dense.cluster > 0; })
        .def_property_readonly("shares", [](const Plan& plan) { return plan.dense.shares; })
        .def_readonly("streams", &Plan::streams)
        .def_readonly("batch", &Plan::batch)
        .def_readonly("queries", &Plan::queries)
        .def_readonly("cluster", &Plan::cluster)
        .def_readonly("stages", &Plan::stages)
        .def_readonly("slice", &Plan::slice)
        .def_readonly("parts", &Plan::parts)
        .def_readonly("exact_parts", &Plan::exact_parts);
    m.def("plan", &plan_on, py::arg("machine"), py::arg("dtype"), py::arg("shape"), py::arg("batch"));
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
    m.attr("LOT") = kLot;
    define_fields(m);
    py::class_<Data>(m, "Data", py::module_local(),
                     "A view of stored rows [n, d] on a GPU; the caller keeps the memory alive, unchanged.")
        .def(py::init(&make_data), py::arg("rows"), py::arg("dtype"), py::arg("shape"), py::arg("half_norm"),
             py::arg("radii"), py::arg("device"), py::arg("pass_") = 0)
        .def("plan", &plan, py::arg("rows"), py::arg("batch"))
        .def("posterior", &run, Unlocked(), py::arg("arguments"), py::arg("plan"), py::arg("workspace"),
             py::arg("result"), py::arg("stream"))
        .def("covariance", py::overload_cast<const Data&, const Arguments&, Covariance, uintptr_t>(&covariance),
             Unlocked(), py::arg("arguments"), py::arg("covariance"), py::arg("stream"))
        .def("masses", py::overload_cast<const Data&, const Arguments&, Masses, uintptr_t>(&masses), Unlocked(),
             py::arg("arguments"), py::arg("masses"), py::arg("stream"))
        .def("picks", py::overload_cast<const Data&, const Arguments&, Picks, uintptr_t>(&picks), Unlocked(),
             py::arg("arguments"), py::arg("picks"), py::arg("stream"))
        .def("combine", py::overload_cast<const Data&, const Combined&, uintptr_t>(&combine), Unlocked(),
             py::arg("combined"), py::arg("stream"))
        .def("distances", &distances, Unlocked(), py::arg("products"), py::arg("stream"))
        .def("inner_products", &inner_products, Unlocked(), py::arg("products"), py::arg("stream"))
        .def("weighted_sum", &weighted_sum, Unlocked(), py::arg("products"), py::arg("parts"), py::arg("stream"));
}
