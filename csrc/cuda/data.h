// A data set as the GPU core holds it: addresses on the device, and what is known about the rows.
#pragma once

#include "combine.h"
#include "moments.h"
#include "plan.h"

namespace geodiff::cuda {

struct Data {
    const void* rows;  // [n, d] on the device
    DType dtype;
    int64_t n, d;
    const double* half_norm;                  // [n] on the device
    double radius, max_norm, max_model_norm;  // centred units, as in Stats
    int device;
    Machine machine;
    // Of the rows, where the machine has the dense pass: in its tiles, and in those of the fused one.
    TensorMap map, few;

    double unit() const { return unit_of(dtype); }
    double shift() const { return shift_of(dtype); }
};

struct Arguments {
    const void* x;  // [batch, d] model units, float if `single`, else double
    bool single;
    const double* sigma;  // [batch] model units
    const double* bias;   // [n], or [batch, n] with bias_stride = n, or null
    int64_t bias_stride;
    const int64_t* exclude;  // [batch] row that each query does not see, -1 for none; or null
    int64_t batch, begin, end;
    double tol;
    const int64_t* list;  // [batch, listed] rows from `begin` on, -1 for none; or null: all of [begin, end)
    int64_t listed;
};

// Puts the whole call on `stream` and returns: nothing waits for the device, so it can be captured into a CUDA graph.
// Which path answers a query is decided on the device: what the streaming pass cannot promise is done in float64.
void posterior(const Data& data, const Arguments& arguments, const Plan& plan, void* workspace, const Result& result,
               uintptr_t stream);

// One float64 number per query and row of [begin, end), out [batch, end - begin], and what is made of such numbers: out
// [parts, batch, d], to be added up over the parts. x and the sums in model units; `numbers` are x or the weights.
struct Products {
    const double* numbers;
    double* out;
    int64_t batch, begin, end;
    const int64_t* list;  // distances only: [batch, end - begin] rows to take instead, infinity for -1; or null
};
void distances(const Data& data, const Products& products, uintptr_t stream);       // |x - x_i|^2
void inner_products(const Data& data, const Products& products, uintptr_t stream);  // <x, x_i>
void weighted_sum(const Data& data, const Products& products, int64_t parts, uintptr_t stream);

// What moments.h has. Here x are in centred units, double.
void covariance(const Data& data, const Arguments& arguments, Covariance covariance, uintptr_t stream);
void masses(const Data& data, const Arguments& arguments, Masses masses, uintptr_t stream);
void picks(const Data& data, const Arguments& arguments, Picks picks, uintptr_t stream);

void combine(const Data& data, const Combined& combined, uintptr_t stream);

// What device number `device` offers.
Machine machine(int device);
// The same to rows [n, d] at an address, and how they are found in tiles where it has the dense pass.
Data with_machine(Data data);
// Versions of the CUDA runtime that is linked in and of the one that the driver serves: 13000 for 13.0; 0: no driver.
int runtime();
int driver();
// Whether the streaming pass serves calls of `batch` queries of d numbers on that device.
bool streams(int device, DType dtype, int64_t d, int64_t batch);
// The same of the dense pass, where the rows start at a multiple of 16.
bool dense(int device, DType dtype, int64_t d, int64_t batch);
// How a call of `batch` queries over `rows` of the data is laid out.
Plan plan(const Data& data, int64_t rows, int64_t batch);

}  // namespace geodiff::cuda
