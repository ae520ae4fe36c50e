// Kernel launches, every return code looked at: what fails becomes an exception that names the call and the error.
#pragma once

#include <cstdint>

#include "device.h"
#include "plan.h"

#ifndef GEODIFF_CUDA_EMULATED
#include <stdexcept>
#include <string>
#endif

namespace geodiff::cuda {

struct Grid {
    unsigned x, y, z;
    int cluster;  // blocks of a cluster, along x
};

#ifdef GEODIFF_CUDA_EMULATED

struct OnDevice {
    explicit OnDevice(int) {}
};

template <class Args>
void launch(const char*, void (*kernel)(Args), const Grid& grid, int threads, size_t shared, uintptr_t,
            const Args& args) {
    emulated::launch(kernel, {grid.x, grid.y, grid.z}, grid.cluster, threads, shared, args);
}

template <class Args>
bool compiled_for_clusters(void (*)(Args)) {
    return emulated::clusters_compiled;
}

inline Machine machine_of(int) { return emulated::machine; }
inline int runtime_version() { return 0; }

#else

inline void check(cudaError_t code, const std::string& call) {
    if (code == cudaSuccess) return;
    cudaGetLastError();  // a launch error is otherwise reported once more by the next call
    throw std::runtime_error(call + ": " + cudaGetErrorName(code) + ": " + cudaGetErrorString(code));
}

// Makes `device` current, and the one before it again at the end.
class OnDevice {
  public:
    explicit OnDevice(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (device != before_) check(cudaSetDevice(device), "cudaSetDevice(" + std::to_string(device) + ")");
    }
    ~OnDevice() { cudaSetDevice(before_); }  // it was current before: cannot fail, and nothing could be done if it did
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = 0;
};

template <class Args>
void launch(const char* name, void (*kernel)(Args), const Grid& grid, int threads, size_t shared, uintptr_t stream,
            const Args& args) {
    if (shared > 48 << 10)  // more than this must be asked for
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)),
              std::string("cudaFuncSetAttribute(") + name + ", " + std::to_string(shared) + " bytes of shared memory)");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(grid.x, grid.y, grid.z);
    config.blockDim = dim3(unsigned(threads));
    config.dynamicSmemBytes = shared;
    config.stream = reinterpret_cast<cudaStream_t>(stream);
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = unsigned(grid.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = grid.cluster > 1 ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, args), std::string("launch of ") + name);
}

// Clusters take a chip that has them and code that was compiled for one (device.h): on a chip later than all the code
// was compiled for, the driver translates that of an older one, which knows no clusters.
template <class Args>
bool compiled_for_clusters(void (*kernel)(Args)) {
    cudaFuncAttributes found{};
    check(cudaFuncGetAttributes(&found, kernel), "cudaFuncGetAttributes");
    return found.ptxVersion >= 90;
}

inline Machine machine_of(int device) {
    const auto attribute = [device](cudaDeviceAttr which) {
        int value = 0;
        check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
        return value;
    };
    return {attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
            attribute(cudaDevAttrComputeCapabilityMajor) >= 9};
}

inline int runtime_version() {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
    return version;
}

#endif

}  // namespace geodiff::cuda
