#include "openmp.h"

#ifdef __linux__
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

namespace geodiff {

namespace {

std::atomic<bool> forked{false};
const int watching = pthread_atfork(nullptr, nullptr, [] { forked = true; });  // from when this library is loaded

template <class Function>
bool find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
}

bool find_all(void* library, OpenMP& found) {
    return find(library, "GOMP_parallel", found.run) && find(library, "omp_get_thread_num", found.thread) &&
           find(library, "omp_get_num_threads", found.threads);
}

// Through PyTorch's own library, whose dependencies are searched in order: the runtime that PyTorch calls, whatever
// brought another. LLVM's and Intel's answer to GNU's names too. Failing that, what all libraries can see.
bool find_pytorchs(OpenMP& found) {
    if (void* pytorch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD)) {
        const bool all = find_all(pytorch, found);
        dlclose(pytorch);  // it stays loaded: this gives back our count of it alone
        if (all) return true;
    }
    return find_all(RTLD_DEFAULT, found);
}

}  // namespace

const OpenMP* openmp() {
    static OpenMP found;
    static const bool any = watching == 0 && find_pytorchs(found);
    return any && !forked ? &found : nullptr;
}

}  // namespace geodiff

#else

namespace geodiff {

const OpenMP* openmp() { return nullptr; }

}  // namespace geodiff

#endif
