#include "mapped.h"

#if defined(__unix__) || defined(__APPLE__)

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace geodiff {
namespace {

// Read by the handler, which may interrupt anything: atomic, never freed.
struct Watched {
    std::atomic<bool> taken{false};
    std::atomic<uintptr_t> begin{0}, end{0};
    std::atomic<bool> lost{false};
};

constexpr int kMost = 128;  // calls over mapped files at one time; more go unwatched
Watched watched[kMost];
struct sigaction before;  // what stood there before: for a SIGBUS that is not ours
std::mutex installing;
long page_size = 4096;

void pass_on(int number, siginfo_t* info, void* context) {
    if ((before.sa_flags & SA_SIGINFO) && before.sa_sigaction)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        sigaction(number, &before, nullptr);  // the read is tried again, and ends the process as it would have
}

void on_bus_error(int number, siginfo_t* info, void* context) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(info->si_addr);
    bool ours = false;
    for (Watched& w : watched)
        if (w.taken && at >= w.begin && at < w.end) ours = w.lost = true;
    if (!ours) return pass_on(number, info, context);
    void* const page = reinterpret_cast<void*>(at / uintptr_t(page_size) * uintptr_t(page_size));
    const void* const zeros =
        mmap(page, size_t(page_size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) pass_on(number, info, context);
}

// Each time: others, such as Python's faulthandler, put theirs there too.
void install() {
    const std::lock_guard<std::mutex> lock(installing);
    struct sigaction now;
    if (sigaction(SIGBUS, nullptr, &now) != 0) return;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == &on_bus_error) return;
    page_size = sysconf(_SC_PAGESIZE);
    before = now;
    struct sigaction ours{};
    ours.sa_sigaction = &on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&ours.sa_mask);
    sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

Mapped::Mapped(const void* begin, int64_t bytes) {
    if (bytes == 0) return;
    for (int slot = 0; slot < kMost && slot_ < 0; ++slot)
        if (!watched[slot].taken.exchange(true)) slot_ = slot;
    if (slot_ < 0) return;
    Watched& mine = watched[slot_];
    mine.lost = false;
    mine.begin = reinterpret_cast<uintptr_t>(begin);
    mine.end = mine.begin + uintptr_t(bytes);
    install();
}

Mapped::~Mapped() {
    if (slot_ < 0) return;
    Watched& mine = watched[slot_];
    mine.end = 0;  // before others may take it
    mine.taken = false;
}

bool Mapped::lost() const { return slot_ >= 0 && watched[slot_].lost; }

}  // namespace geodiff

#else

namespace geodiff {

Mapped::Mapped(const void*, int64_t) {}
Mapped::~Mapped() {}
bool Mapped::lost() const { return false; }

}  // namespace geodiff

#endif
