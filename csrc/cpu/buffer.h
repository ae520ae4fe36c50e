// A 64-byte aligned array, uninitialised unless asked: vector loads never cross a cache line.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace geodiff {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t count, bool zeroed = false)
        : data_(static_cast<T*>(::operator new(size_t(count > 0 ? count : 1) * sizeof(T), std::align_val_t(64)))) {
        if (zeroed) std::memset(static_cast<void*>(data_.get()), 0, size_t(count) * sizeof(T));
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](int64_t i) { return data_.get()[i]; }
    const T& operator[](int64_t i) const { return data_.get()[i]; }

  private:
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    std::unique_ptr<T[], Free> data_;
};

}  // namespace geodiff
