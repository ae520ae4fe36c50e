// Arrays as Python passes them: addresses, as integers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace geodiff {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// A field that Python sees as an address.
template <class Class, class Field>
void address(pybind11::class_<Class>& type, const char* name, Field Class::* field) {
    type.def_property(
        name, [field](const Class& c) { return reinterpret_cast<uintptr_t>(c.*field); },
        [field](Class& c, uintptr_t value) { c.*field = reinterpret_cast<Field>(value); });
}

}  // namespace geodiff
