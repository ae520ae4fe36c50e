#include "read_ahead.h"

#if defined(__unix__) || defined(__APPLE__)

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace geodiff {
namespace {

uintptr_t page_size() {
    static const uintptr_t size = uintptr_t(sysconf(_SC_PAGESIZE));
    return size;
}

// Linux: reads and maps the pages now, in large pieces, while it reads ahead of them by itself. (MADV_WILLNEED fills
// the page cache with single pages there, which took twice the time of no advice at all: docs/scale.md.)
#if defined(__linux__)
constexpr int kRead = 22;  // MADV_POPULATE_READ, of Linux 5.14: others say no
#else
constexpr int kRead = MADV_WILLNEED;
#endif

// Of this thread up to now; 0 where nobody counts them.
int64_t faults() {
#ifdef RUSAGE_THREAD
    struct rusage used{};
    if (getrusage(RUSAGE_THREAD, &used) == 0) return used.ru_minflt + used.ru_majflt;
#endif
    return 0;
}

// Advice is given for whole pages. An answer of no is as good as none: pages then come when they are touched.
void advise_pages(uintptr_t begin, uintptr_t end, int advice) {
    if (begin < end) madvise(reinterpret_cast<void*>(begin), size_t(end - begin), advice);
}

}  // namespace

bool ReadAhead::larger_than_memory(int64_t bytes) {
    static const double memory = double(sysconf(_SC_PHYS_PAGES)) * double(page_size());
    return double(bytes) > 0.75 * memory;
}

ReadAhead::ReadAhead(const void* begin, int64_t bytes, bool mapped, bool larger_than_memory)
    : give_back_(larger_than_memory) {
    if (!mapped || bytes <= 0) return;
    behind_ = asked_ = uintptr_t(begin) / page_size() * page_size();
    end_ = uintptr_t(begin) + uintptr_t(bytes);
    due_ = uintptr_t(begin);
}

// Whether the next window is worth asking for: where pages are mapped already, asking costs a tenth of reading them.
bool ReadAhead::wanted() {
    constexpr int kAsked = 15;   // windows from one look to the next
    constexpr int64_t kFew = 4;  // faults since the last look where there is no need
    if (windows_ > 0) {
        --windows_;
        return true;
    }
    const int64_t now = faults(), before = faults_;
    faults_ = now;
    // Faults are counted whether a page is touched or asked for. None are known yet at the first window.
    if (before < 0 || now - before <= kFew) return false;
    windows_ = kAsked;
    return true;
}

void ReadAhead::advise(uintptr_t place) {
    while (asked_ < end_ && asked_ < place + uintptr_t(kWindow)) {
        const uintptr_t next = std::min(asked_ + uintptr_t(kWindow), end_);
        if (wanted()) advise_pages(asked_, next, kRead);
        asked_ = next;
    }
    due_ = asked_ < end_ ? asked_ - uintptr_t(kWindow) + 1 : UINTPTR_MAX;
#ifdef MADV_COLD
    // Cold, not MADV_DONTNEED: a page that was written to (the map is copy-on-write) keeps what was written.
    if (give_back_) {
        const uintptr_t done = place / page_size() * page_size();
        advise_pages(behind_, done, MADV_COLD);
        behind_ = done;
    }
#endif
}

}  // namespace geodiff

#else

namespace geodiff {

bool ReadAhead::larger_than_memory(int64_t) { return false; }
ReadAhead::ReadAhead(const void*, int64_t, bool, bool) {}
void ReadAhead::advise(uintptr_t) {}

}  // namespace geodiff

#endif
