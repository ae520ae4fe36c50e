// Kernel launches, every return code looked at: what fails becomes an exception that names the call and the error.
#pragma once

#include <cstdint>
#include <cstring>

#include "device.h"
#include "plan.h"

#ifndef GEODIFF_CUDA_EMULATED
#include <cuda.h>

#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
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

template <class Args>
int resident_clusters(const Machine& machine, void (*)(Args), int cluster, int, size_t shared) {
    return emulated::resident_clusters(machine, cluster, shared);
}

inline Machine machine_of(int) { return emulated::machine; }
inline TensorMap tensor_map(const void* rows, int64_t n, int64_t d, int together) {
    TensorMap out{};
    const emulated::Matrix matrix{static_cast<const uint8_t*>(rows), n, d, together};
    std::memcpy(out.bytes, &matrix, sizeof matrix);
    return out;
}
inline int runtime_version() { return 0; }
inline int driver_version() { return 0; }
inline int64_t most_blocks() { return emulated::most_blocks_along_x; }

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

inline int attribute_of(int device, cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

// Lets `kernel` have as much shared memory as the current device has for it. Once, and not as much as a launch needs:
// the limit is the kernel's, so that launches of other threads would lower it.
inline void allow_shared_memory(const std::string& name, const void* kernel) {
    static std::mutex mutex;
    static std::set<std::pair<const void*, int> > allowed;
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const std::lock_guard<std::mutex> lock(mutex);
    if (allowed.count({kernel, device})) return;
    cudaFuncAttributes own{};
    check(cudaFuncGetAttributes(&own, kernel), "cudaFuncGetAttributes(" + name + ")");
    const int most = attribute_of(device, cudaDevAttrMaxSharedMemoryPerBlockOptin) - int(own.sharedSizeBytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
          "cudaFuncSetAttribute(" + name + ", " + std::to_string(most) + " bytes of shared memory)");
    allowed.insert({kernel, device});
}

constexpr size_t kUnasked = 48 << 10;  // bytes of shared memory that every kernel may have

class Configuration {
  public:
    Configuration(const Grid& grid, int threads, size_t shared, uintptr_t stream) {
        cluster_.id = cudaLaunchAttributeClusterDimension;
        cluster_.val.clusterDim.x = unsigned(grid.cluster);
        cluster_.val.clusterDim.y = cluster_.val.clusterDim.z = 1;
        config_.gridDim = dim3(grid.x, grid.y, grid.z);
        config_.blockDim = dim3(unsigned(threads));
        config_.dynamicSmemBytes = shared;
        config_.stream = reinterpret_cast<cudaStream_t>(stream);
        config_.attrs = &cluster_;
        config_.numAttrs = grid.cluster > 1 ? 1 : 0;
    }
    Configuration(const Configuration&) = delete;
    Configuration& operator=(const Configuration&) = delete;
    const cudaLaunchConfig_t* get() const { return &config_; }

  private:
    cudaLaunchAttribute cluster_{};
    cudaLaunchConfig_t config_{};
};

template <class Args>
void launch(const char* name, void (*kernel)(Args), const Grid& grid, int threads, size_t shared, uintptr_t stream,
            const Args& args) {
    if (shared > kUnasked) allow_shared_memory(name, reinterpret_cast<const void*>(kernel));
    const Configuration config(grid, threads, shared, stream);
    check(cudaLaunchKernelEx(config.get(), kernel, args), std::string("launch of ") + name);
}

// Clusters of `kernel` that run at once on the current device, which is `machine`. Asked once: it does not change, and
// the answer takes longer than a launch.
template <class Args>
int resident_clusters(const Machine& machine, void (*kernel)(Args), int cluster, int threads, size_t shared) {
    static std::mutex mutex;
    static std::map<std::tuple<void (*)(Args), int, int, size_t>, int> known;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto [place, is_new] = known.try_emplace({kernel, machine.device, cluster, shared}, 0);
    int& found = place->second;
    if (!is_new && found > 0) return found;
    if (shared > kUnasked) allow_shared_memory("stream", reinterpret_cast<const void*>(kernel));
    if (cluster == 1) {
        check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&found, kernel, threads, shared),
              "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
        found *= machine.multiprocessors;
    } else {
        const Configuration config({unsigned(cluster), 1, 1, cluster}, threads, shared, 0);
        check(cudaOccupancyMaxActiveClusters(&found, kernel, config.get()), "cudaOccupancyMaxActiveClusters");
    }
    return found;
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
    return {attribute_of(device, cudaDevAttrMultiProcessorCount),
            attribute_of(device, cudaDevAttrMaxSharedMemoryPerBlockOptin),
            attribute_of(device, cudaDevAttrComputeCapabilityMajor) >= 9, device,
            attribute_of(device, cudaDevAttrComputeCapabilityMajor) == 9};
}

// Rows [n, d] of bytes in tiles of 128 bytes of `together` rows. The driver makes it, which is asked for by name:
// nothing is linked to it.
inline TensorMap tensor_map(const void* rows, int64_t n, int64_t d, int together) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
          "cudaGetDriverEntryPointByVersion(cuTensorMapEncodeTiled)");
    if (result != cudaDriverEntryPointSuccess) throw std::runtime_error("cuTensorMapEncodeTiled: the driver has none");
    CUtensorMap map{};
    const cuuint64_t sizes[2] = {cuuint64_t(d), cuuint64_t(n)}, strides[1] = {cuuint64_t(d)};
    const cuuint32_t box[2] = {kTile, cuuint32_t(together)}, steps[2] = {1, 1};
    const CUresult code = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found)(
        &map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(rows), sizes, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled: error " + std::to_string(int(code)));
    TensorMap out;
    static_assert(sizeof out.bytes == sizeof map && alignof(TensorMap) >= alignof(CUtensorMap));
    std::memcpy(out.bytes, &map, sizeof map);
    return out;
}

inline int64_t most_blocks() { return INT32_MAX; }  // of a grid along x

inline int runtime_version() {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
    return version;
}

inline int driver_version() {
    int version = 0;
    check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    return version;
}

#endif

}  // namespace geodiff::cuda
