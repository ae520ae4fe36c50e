// The GPU core over the emulator: geodiff._cuda as it is, and beside it what the tests turn.
#include "../../csrc/bindings/cuda.cpp"
#include "emulator.h"

PYBIND11_MODULE(emulator, m) {
    m.def("set_machine", [](int multiprocessors, int64_t shared, bool clusters) {
        emulated::machine = {multiprocessors, shared, clusters, 0, false};
    });
    m.def("set_dense", [](bool dense) { emulated::machine.dense = dense; });
    m.def("set_groups", [](const std::vector<int>& groups) { emulated::groups = groups; });
    m.def("set_most_blocks_along_x", [](int64_t most) { emulated::most_blocks_along_x = most; });
    m.def("set_ahead", [](int ahead) { emulated::ahead = emulated::Ahead(ahead); });
    m.def("worst_conflict", [] { return std::exchange(emulated::worst_conflict, 0); });
    m.def("set_clusters_compiled", [](bool compiled) { emulated::clusters_compiled = compiled; });
    m.def("set_most_blocks", [](unsigned most) { emulated::most_blocks = most; });
    m.def("set_order", [](unsigned order) { emulated::order = order; });
}
