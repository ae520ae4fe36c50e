// Going from front to back through memory that is a map of a file: the system reads what comes next while a thread
// computes, in requests large enough for any disk, and of a set that memory does not hold it takes back first what lies
// behind. By itself it reads ahead as much as a setting of the disk says, often 128 KiB, of one place of the file.
#pragma once

#include <cstdint>

namespace geodiff {

class ReadAhead {
  public:
    static constexpr int64_t kWindow = 8 << 20, kAhead = 2 * kWindow;  // bytes asked for at once, and before the reader

    // Through memory [begin, begin + bytes); nothing at all where `mapped` is false or the system takes no such advice.
    // `larger_than_memory`: what was read is not worth keeping, since it is gone before the next pass comes to it.
    ReadAhead(const void* begin, int64_t bytes, bool mapped, bool larger_than_memory = false);

    // The thread is about to read from `place`, which never goes back.
    void reached(const void* place) {
        if (uintptr_t(place) >= due_) advise(uintptr_t(place));
    }

    // Whether so many bytes are more than the page cache can be expected to keep from one pass to the next.
    static bool larger_than_memory(int64_t bytes);

  private:
    void advise(uintptr_t place);

    uintptr_t asked_ = 0, end_ = 0, behind_ = 0;
    uintptr_t due_ = UINTPTR_MAX;  // the place at which more is asked for
    bool give_back_ = false;
};

}  // namespace geodiff
