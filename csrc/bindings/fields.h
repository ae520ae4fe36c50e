// Structs that Python fills in field by field. Arrays come as addresses, as integers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <type_traits>

namespace geodiff {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Fields under their names; what is a pointer here is an address there.
template <class Class, class Field, class... More>
void fields(pybind11::class_<Class>& type, const char* name, Field Class::* field, More... more) {
    if constexpr (std::is_pointer_v<Field>)
        type.def_property(
            name, [field](const Class& c) { return reinterpret_cast<uintptr_t>(c.*field); },
            [field](Class& c, uintptr_t value) { c.*field = reinterpret_cast<Field>(value); });
    else
        type.def_readwrite(name, field);
    if constexpr (sizeof...(More) > 0) fields(type, more...);
}

}  // namespace geodiff
