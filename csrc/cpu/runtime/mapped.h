// Memory that is a map of a file: where the file ends early, or its disk fails, a read of it raises SIGBUS, which ends
// the process. While such memory is watched, the page is replaced by zeros instead, and whoever watches is told.
#pragma once

#include <cstdint>

namespace geodiff {

class Mapped {
  public:
    // Watches memory [begin, begin + bytes) as long as the object lives; nothing at all for 0 bytes, or where the
    // system knows no such signal.
    Mapped(const void* begin, int64_t bytes);
    ~Mapped();
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;

    // Whether a page could not be read since: what was computed from it is wrong.
    bool lost() const;

  private:
    int slot_ = -1;
};

}  // namespace geodiff
