// geodiff._cuda: the GPU core for Python. Arrays come as device addresses, the stream as an integer: no torch headers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>
#include <utility>

#include "../cuda/data.h"
#include "address.h"

namespace py = pybind11;
using namespace geodiff::cuda;
using geodiff::address;
using geodiff::at;

namespace {

using Shape = std::tuple<int64_t, int64_t>;               // [n, d]
using Radii = std::tuple<double, double, double>;         // of all rows around their mean, and around 0 in both units
using Terms = std::vector<std::pair<double, uintptr_t>>;  // factors and numbers
using Unlocked = py::call_guard<py::gil_scoped_release>;  // other Python threads run meanwhile

Data make_data(uintptr_t rows, int dtype, Shape shape, uintptr_t half_norm, Radii radii, int device) {
    const auto [n, d] = shape;
    const auto [radius, max_norm, max_model_norm] = radii;
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

// A struct whose fields Python sets one by one; all are zero until then.
template <class Fields>
py::class_<Fields> fields(py::module_& m, const char* name, const char* what) {
    py::class_<Fields> type(m, name, py::module_local(), what);
    type.def(py::init([] { return Fields{}; }));
    return type;
}

// What a call takes and where it leaves what it found, as the headers of csrc/cuda have it.
void define_fields(py::module_& m) {
    auto arguments = fields<Arguments>(m, "Arguments", "What is asked of a range of rows.");
    address(arguments, "x", &Arguments::x);
    address(arguments, "sigma", &Arguments::sigma);
    address(arguments, "bias", &Arguments::bias);
    address(arguments, "exclude", &Arguments::exclude);
    address(arguments, "list", &Arguments::list);
    arguments.def_readwrite("single", &Arguments::single)
        .def_readwrite("bias_stride", &Arguments::bias_stride)
        .def_readwrite("batch", &Arguments::batch)
        .def_readwrite("begin", &Arguments::begin)
        .def_readwrite("end", &Arguments::end)
        .def_readwrite("tol", &Arguments::tol)
        .def_readwrite("listed", &Arguments::listed);
    auto result = fields<Result>(m, "Result", "Where a posterior goes.");
    address(result, "mean", &Result::mean);
    address(result, "log_sum", &Result::log_sum);
    address(result, "entropy", &Result::entropy);
    address(result, "ess", &Result::ess);
    address(result, "mean_bias", &Result::mean_bias);
    address(result, "path", &Result::path);
    auto covariance = fields<Covariance>(m, "Covariance", "Along what covariances are asked for, and where they go.");
    address(covariance, "mean", &Covariance::mean);
    address(covariance, "v", &Covariance::v);
    address(covariance, "along", &Covariance::along);
    address(covariance, "sums", &Covariance::sums);
    address(covariance, "states", &Covariance::states);
    address(covariance, "with_rows", &Covariance::with_rows);
    address(covariance, "with_far", &Covariance::with_far);
    covariance.def_readwrite("parts", &Covariance::parts);
    auto masses = fields<Masses>(m, "Masses", "Where the masses of lots of rows go.");
    address(masses, "top", &Masses::top);
    address(masses, "mass", &Masses::mass);
    auto picks = fields<Picks>(m, "Picks", "The lots that draws have fallen into, and where their rows go.");
    address(picks, "top", &Picks::top);
    address(picks, "lot", &Picks::lot);
    address(picks, "target", &Picks::target);
    address(picks, "row", &Picks::row);
    picks.def_readwrite("count", &Picks::count);
    auto combined = fields<Combined>(m, "Combined", "out = gain mean + the sum of (factor, values) in `terms`.");
    address(combined, "mean", &Combined::mean);
    address(combined, "out", &Combined::out);
    combined.def_readwrite("gain", &Combined::gain)
        .def_readwrite("size", &Combined::size)
        .def_readwrite("single", &Combined::single)
        .def_property("terms", nullptr, &take_terms);
    auto products = fields<Products>(m, "Products", "A number for each query and row, or what is made of such.");
    address(products, "numbers", &Products::numbers);
    address(products, "out", &Products::out);
    address(products, "list", &Products::list);
    products.def_readwrite("batch", &Products::batch)
        .def_readwrite("begin", &Products::begin)
        .def_readwrite("end", &Products::end);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "Optimal denoiser on NVIDIA GPUs: see csrc/cuda/README.md";
    m.def("runtime", &runtime, "Version of the CUDA runtime that is linked in, 13000 for 13.0.");
    m.def("driver", &driver, "Latest version of the CUDA runtime that the driver serves; 0 without one.");
    py::class_<Machine>(m, "Machine", py::module_local(), "What a GPU offers.")
        .def(py::init([](int multiprocessors, int64_t shared, bool clusters, bool dense) {
                 return Machine{multiprocessors, shared, clusters, 0, dense};
             }),
             py::arg("multiprocessors"), py::arg("shared"), py::arg("clusters"), py::arg("dense") = false);
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
             py::arg("radii"), py::arg("device"))
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
