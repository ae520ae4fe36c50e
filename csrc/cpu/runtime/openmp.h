// The OpenMP runtime that PyTorch brought into this process, found when the first parallel region needs it.
//
// Not linked: wheels of PyTorch 2.6 carry a libgomp under a name of their own, so a library that asks for libgomp.so.1
// gets a second one, whose threads fight with the spinning ones of the first. docs/packaging.md has the measurement.
#pragma once

namespace geodiff {

// A team of threads: body(arguments) runs on every one of them, and the runtime says which of how many it is on.
struct OpenMP {
    using Body = void(void*);
    void (*run)(Body*, void* arguments, unsigned threads, unsigned flags);  // GOMP_parallel
    int (*thread)();                                                        // omp_get_thread_num
    int (*threads)();                                                       // omp_get_num_threads
};

// Null where PyTorch has none (a system other than Linux, a build without it, no PyTorch in the process), and in a
// child of fork(): its parent's team did not come along, and the runtime would wait for it for ever.
const OpenMP* openmp();

}  // namespace geodiff
