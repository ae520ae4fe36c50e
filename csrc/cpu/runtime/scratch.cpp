#include "scratch.h"

#include <algorithm>
#include <iterator>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace geodiff::scratch {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostKept = 0;  // kept memory would hide a use after free
#else
constexpr size_t kMostKept = 32 << 20;
#endif
constexpr size_t kSmall = 32 << 10;  // malloc keeps such blocks itself
constexpr std::align_val_t kAlignment{64};

struct Block {
    size_t size;
    void* memory;
};

// Never destroyed: threads may still give blocks back while the process ends.
struct Kept {
    std::mutex guard;
    std::vector<Block> blocks;  // the latest last: what was used last is in cache
    size_t bytes = 0;
};

Kept& kept() {
    static Kept* const all = new Kept;
    return *all;
}

// Held for a few instructions at a time; but a child of fork() may find it held for ever, and then goes without.
std::unique_lock<std::mutex> locked(std::mutex& guard) {
    std::unique_lock<std::mutex> lock(guard, std::defer_lock);
    for (int tries = 0; tries < 1000 && !lock.try_lock(); ++tries) std::this_thread::yield();
    return lock;
}

// Sizes in eight steps from one power of two to the next, so that calls of nearly equal size share blocks.
size_t rounded(size_t bytes) {
    size_t step = kSmall / 8;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

}  // namespace

void* take(size_t bytes) {
    if (bytes < kSmall) return ::operator new(std::max<size_t>(bytes, 1), kAlignment);
    const size_t size = rounded(bytes);
    Kept& all = kept();
    if (const auto lock = locked(all.guard); lock) {
        const auto found =
            std::find_if(all.blocks.rbegin(), all.blocks.rend(), [&](const Block& b) { return b.size == size; });
        if (found != all.blocks.rend()) {
            void* const memory = found->memory;
            all.blocks.erase(std::next(found).base());
            all.bytes -= size;
            return memory;
        }
    }
    return ::operator new(size, kAlignment);
}

void give(void* memory, size_t bytes) noexcept {
    if (bytes >= kSmall) {
        const size_t size = rounded(bytes);
        Kept& all = kept();
        if (const auto lock = locked(all.guard); lock && size <= kMostKept) {
            while (all.bytes + size > kMostKept) {  // what has not been wanted for longest goes
                ::operator delete(all.blocks.front().memory, kAlignment);
                all.bytes -= all.blocks.front().size;
                all.blocks.erase(all.blocks.begin());
            }
            try {
                all.blocks.push_back({size, memory});
                all.bytes += size;
                return;
            } catch (const std::bad_alloc&) {  // no room to note it down
            }
        }
    }
    ::operator delete(memory, kAlignment);
}

}  // namespace geodiff::scratch
