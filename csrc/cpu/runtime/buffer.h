// A 64-byte aligned array, uninitialised unless asked: vector loads never cross a cache line.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "scratch.h"

namespace geodiff {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t count, bool zeroed = false)
        : data_(static_cast<T*>(scratch::take(size_t(count) * sizeof(T))), Give{size_t(count) * sizeof(T)}) {
        if (zeroed) std::memset(static_cast<void*>(data_.get()), 0, size_t(count) * sizeof(T));
    }

    int64_t size() const { return int64_t(data_.get_deleter().bytes / sizeof(T)); }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](int64_t i) { return data_.get()[i]; }
    const T& operator[](int64_t i) const { return data_.get()[i]; }

  private:
    struct Give {
        size_t bytes = 0;
        void operator()(T* memory) const { scratch::give(memory, bytes); }
    };
    std::unique_ptr<T[], Give> data_;
};

}  // namespace geodiff
