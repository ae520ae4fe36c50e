#include "read_ahead.h"

#if defined(__unix__) || defined(__APPLE__)

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace geodiff {
namespace {

uintptr_t page_size() {
    static const uintptr_t size = uintptr_t(sysconf(_SC_PAGESIZE));
    return size;
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

void ReadAhead::advise(uintptr_t place) {
    while (asked_ < end_ && asked_ < place + uintptr_t(kAhead)) {
        const uintptr_t next = std::min(asked_ + uintptr_t(kWindow), end_);
        advise_pages(asked_, next, MADV_WILLNEED);
        asked_ = next;
    }
    due_ = asked_ < end_ ? asked_ - uintptr_t(kAhead) + 1 : UINTPTR_MAX;
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
