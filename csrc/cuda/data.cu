#include "../common/contract.h"
#include "data.h"
#include "dense.h"
#include "fused.h"
#include "kernels.h"

namespace geodiff::cuda {
namespace {

// A covariance is measured against sigma^2, so what may be dropped is less by the factor (2 radius / sigma)^2 than for
// the mean: so much of it is reckoned with, log 1e16, sigma down to some 1e-8 of the radius.
constexpr double kSpread = 37;

// The memory engine takes rows that start at multiples of 16 bytes.
bool can_copy_tiles(const void* rows, int64_t d) { return uintptr_t(rows) % 16 == 0 && d % 16 == 0; }

const void* row(const Data& data, int64_t i) {
    return static_cast<const char*>(data.rows) + i * data.d * item_size(data.dtype);
}

Pairs pairs(const Data& data, const Products& p) {
    return {row(data, p.begin), p.numbers,    p.out,          p.list, p.end - p.begin, data.d, p.batch,
            data.unit(),        data.shift(), int(data.dtype)};
}

// The call as a problem of all of its queries.
Problem problem(const Data& data, const Arguments& a) {
    const Scale scale{data.max_model_norm, data.radius};
    Problem p{};
    p.rows = row(data, a.begin);
    p.half_norm = data.half_norm + a.begin;
    p.bias = a.bias ? a.bias + a.begin : nullptr;
    p.bias_stride = a.bias_stride;
    p.exclude = a.exclude;
    p.first = a.begin;
    p.x = a.x;
    p.single = a.single;
    p.sigma = a.sigma;
    p.n = a.end - a.begin;
    p.d = data.d;
    p.batch = a.batch;
    p.unit = data.unit();
    p.shift = data.shift();
    p.radius = data.radius;
    p.max_norm = data.max_norm;
    p.cut = scale.cut(p.n, a.tol);
    p.tol = a.tol;
    p.least_scale = scale.least();
    return p;
}

void run_dense(const Dense& dense, uintptr_t to) {
    dense_prepare(dense, to);
    dense_logits(dense, to);
    dense_weights(dense, to);
    dense_sums(dense, to);
    dense_finish(dense, to);
    settle(dense.call, kWeightError, to);
}

void run_fused(const Dense& dense, uintptr_t to) {
    dense_prepare(dense, to);
    fused(dense, to);
    merge(dense.call, false, to);
    settle(dense.call, 0, to);
}

}  // namespace

void posterior(const Data& data, const Arguments& a, const Plan& plan, void* workspace, const Result& result,
               uintptr_t to) {
    const OnDevice here(data.device);
    const int64_t d = data.d;
    const Problem whole = problem(data, a);
    Call call{};
    Problem& p = call.problem;
    p = whole;
    const Plan::Carved carved = plan.carve(workspace);
    call.work = carved.work;
    call.slice = plan.slice;
    call.cluster = plan.cluster;
    call.stages = plan.stages;
    call.dtype = int(data.dtype);
    call.listed = a.listed;
    const auto right = [&](int bytes) { return uintptr_t(p.rows) % uintptr_t(bytes) == 0 && d % bytes == 0; };
    call.copy = right(16) ? 16 : right(4) ? 4 : 1;
    for (int64_t base = 0; base < a.batch; base += plan.batch) {
        p.batch = base + plan.batch < a.batch ? plan.batch : a.batch - base;
        p.x = static_cast<const char*>(a.x) + base * d * (a.single ? 4 : 8);
        p.sigma = a.sigma + base;
        p.bias = a.bias ? whole.bias + base * a.bias_stride : nullptr;
        p.exclude = a.exclude ? a.exclude + base : nullptr;
        call.list = a.list ? a.list + base * a.listed : nullptr;
        call.result = {result.mean + base * d, result.log_sum + base,   result.entropy + base,
                       result.ess + base,      result.mean_bias + base, result.path + base};
        const bool dense = plan.dense.group > 0 && !a.list, streams = plan.streams && !a.list;
        if (dense) {
            call.padded = plan.padded;
            call.parts = plan.parts;
            if (plan.dense.cluster > 0)
                run_fused({call, data.few, carved.dense, a.begin, plan.dense}, to);
            else
                run_dense({call, data.map, carved.dense, a.begin, plan.dense}, to);
        } else {
            call.padded = streams ? (p.batch + plan.queries - 1) / plan.queries * plan.queries : p.batch;
            prepare(call, streams, to);
        }
        if (streams) {
            call.parts = plan.parts;
            stream(call, plan.queries, to);
            merge(call, false, to);
            settle(call, 0, to);
        }
        call.parts = plan.exact_parts;
        exact(call, to);
        merge(call, true, to);
    }
}

void covariance(const Data& data, const Arguments& a, Covariance asked, uintptr_t stream) {
    const OnDevice here(data.device);
    asked.problem = problem(data, a);
    asked.problem.cut += kSpread;
    asked.dtype = int(data.dtype);
    covariance(asked, stream);
}

void masses(const Data& data, const Arguments& a, Masses asked, uintptr_t stream) {
    const OnDevice here(data.device);
    asked.problem = problem(data, a);
    asked.dtype = int(data.dtype);
    masses(asked, stream);
}

void picks(const Data& data, const Arguments& a, Picks asked, uintptr_t stream) {
    const OnDevice here(data.device);
    asked.problem = problem(data, a);
    asked.dtype = int(data.dtype);
    picks(asked, stream);
}

void combine(const Data& data, const Combined& combined, uintptr_t stream) {
    const OnDevice here(data.device);
    combine(combined, stream);
}

void distances(const Data& data, const Products& p, uintptr_t stream) {
    const OnDevice here(data.device);
    distances(pairs(data, p), stream);
}

void inner_products(const Data& data, const Products& p, uintptr_t stream) {
    const OnDevice here(data.device);
    inner_products(pairs(data, p), stream);
}

void weighted_sum(const Data& data, const Products& p, int64_t parts, uintptr_t stream) {
    const OnDevice here(data.device);
    weighted_sum({row(data, p.begin), p.numbers, p.out, p.end - p.begin, data.d, p.batch, parts, data.unit(),
                  data.shift(), int(data.dtype), 0},
                 stream);
}

Machine machine(int device) {
    const OnDevice here(device);
    Machine found = machine_of(device);
    found.clusters = found.clusters && streams_in_clusters();
    return found;
}

Data with_machine(Data data) {
    const OnDevice here(data.device);
    const Pass asked = data.machine.pass;
    data.machine = machine(data.device);
    data.machine.pass = asked;
    data.machine.dense = data.machine.dense && can_copy_tiles(data.rows, data.d) && data.dtype == DType::u8;
    if (data.machine.dense) {
        data.map = tensor_map(data.rows, data.n, data.d, kTile);
        data.few = tensor_map(data.rows, data.n, data.d, kFewRows);
    }
    return data;
}

bool streams(int device, DType dtype, int64_t d, int64_t batch) {
    const OnDevice here(device);
    Machine found = machine(device);
    found.dense = false;
    return make_plan(found, dtype, 1, d, batch).streams;
}

bool dense(int device, DType dtype, int64_t d, int64_t batch) {
    const OnDevice here(device);
    return machine(device).dense && can_copy_tiles(nullptr, d) &&
           make_plan(machine(device), dtype, 1, d, batch).dense.group > 0;
}

Plan plan(const Data& data, int64_t rows, int64_t batch) {
    const OnDevice here(data.device);
    return make_plan(data.machine, data.dtype, rows, data.d, batch);
}

int runtime() { return runtime_version(); }

int driver() { return driver_version(); }

}  // namespace geodiff::cuda
