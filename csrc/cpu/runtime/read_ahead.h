// Going from front to back through memory that is a map of a file: the system is asked for a window at a time, since it
// takes a fault for each few pages that are touched one by one; and of a set that memory does not hold it takes back
// first what lies behind.
#pragma once

#include <cstdint>

namespace geodiff {

class ReadAhead {
  public:
    static constexpr int64_t kWindow = 1 << 20;  // bytes that are asked for at once, as many before they are read

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
    bool wanted();

    uintptr_t asked_ = 0, end_ = 0, behind_ = 0;
    uintptr_t due_ = UINTPTR_MAX;  // the place at which more is asked for
    bool give_back_ = false;
    int64_t faults_ = -1;  // of this thread at the last look
    int windows_ = 0;      // to ask for before the next
};

}  // namespace geodiff
