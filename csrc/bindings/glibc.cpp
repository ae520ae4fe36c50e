// glibc's functions by their oldest names. A linker takes the newest: what was built on a new Linux would not load on
// an old one, although no function has changed its meaning. CMakeLists.txt reads the names below and has the linker's
// --wrap send every call, those of the libstdc++ inside the module too, to the __wrap_ function here. `auditwheel show`
// tells what a wheel needs; tests/project/test_wheel.py looks.
#if defined(__x86_64__)
#define OLDEST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define OLDEST "GLIBC_2.17"
#endif

// result name(parameters), called with these arguments. No header is read, for its own declarations would differ.
#define BIND(result, name, parameters, arguments)      \
    asm(".symver oldest_" #name "," #name "@" OLDEST); \
    result oldest_##name parameters;                   \
    result __wrap_##name parameters { return oldest_##name arguments; }

extern "C" {

// Since 2.32 glibc has a variable that says whether a process has one thread. One of our own, never true, errs safely.
extern char __libc_single_threaded;
char __libc_single_threaded = 0;

// since 2.29: the same values, without a hook that programs of the eighties had for errors
BIND(double, exp, (double x), (x))
BIND(double, log, (double x), (x))
BIND(double, pow, (double x, double y), (x, y))
// since 2.34: the same functions, out of libdl and libpthread into libc
BIND(void*, dlopen, (const char* file, int mode), (file, mode))
BIND(void*, dlsym, (void* library, const char* name), (library, name))
BIND(int, dlclose, (void* library), (library))
BIND(int, pthread_create, (void* thread, const void* attributes, void* (*start)(void*), void* given),
     (thread, attributes, start, given))
BIND(int, pthread_join, (unsigned long thread, void** result), (thread, result))
BIND(int, pthread_detach, (unsigned long thread), (thread))
BIND(int, pthread_once, (void* control, void (*initialise)()), (control, initialise))
BIND(int, pthread_mutex_trylock, (void* mutex), (mutex))
BIND(int, __pthread_key_create, (void* key, void (*destroy)(void*)), (key, destroy))

}  // extern "C"
