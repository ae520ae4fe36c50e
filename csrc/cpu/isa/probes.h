// What the processor and the system say that they run: HAS("feature") and the probes of targets.def.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace geodiff {

#if defined(__x86_64__) || defined(_M_X64)
#define HAS(feature) (__builtin_cpu_init(), __builtin_cpu_supports(feature) != 0)

// Leaf 7, subleaf 1, bit 4 of EAX; GCC 12 cannot ask for it by name. It needs no more of the system than AVX2 does.
inline bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#else
#define HAS(feature) false
inline bool has_avx_vnni() { return false; }
#endif

#if defined(__x86_64__) && defined(__linux__)
// Registers of AMX are asked for, once for the process and its children: the system keeps room for them where it
// switches threads, and refuses where a thread's signal stack has none.
inline bool has_amx() {
    constexpr long kAskForState = 0x1023, kTileData = 18;  // arch_prctl's ARCH_REQ_XCOMP_PERM, and the state's number
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool has = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) &&
                     (d >> 25 & 1);  // bfloat16, tiles, int8
    return has && syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
#else
inline bool has_amx() { return false; }
#endif

#if defined(__aarch64__) && defined(__linux__)
// Bits of the kernel's interface, which headers of old systems do not name.
inline bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }
inline bool has_i8mm() { return getauxval(AT_HWCAP2) >> 13 & 1; }
#elif defined(__aarch64__) && defined(__APPLE__)
inline bool has_optional(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
inline bool has_dotprod() { return has_optional("hw.optional.arm.FEAT_DotProd"); }
inline bool has_i8mm() { return has_optional("hw.optional.arm.FEAT_I8MM"); }
#else
inline bool has_dotprod() { return false; }
inline bool has_i8mm() { return false; }
#endif

}  // namespace geodiff
