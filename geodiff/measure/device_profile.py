"""What one call puts on a GPU: its kernels and their times, how often the host waits, and what the host takes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._autograd import DeviceType

#: Calls of the CUDA runtime in which the host waits for the device.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
#: Calls that are looked at, so that a figure is of a call in the middle of others.
CALLS = 5


def device_profile(call: Callable[[], object]) -> dict[str, Any]:
    """launches and waits per call, host_us until it returns, device_us, and kernels: name -> [per call, us each]."""
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    host = (time.perf_counter() - start) / CALLS
    torch.cuda.synchronize()
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiled:
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()
    return {"host_us": round(host * 1e6, 1), **summary(profiled.events(), CALLS)}


def summary(events: Iterable[Any], calls: int) -> dict[str, Any]:
    """Of the events of torch.profiler over so many calls, and a wait at their end that is not theirs."""
    kernels: defaultdict[str, list[float]] = defaultdict(list)
    waits = 0
    for event in events:
        if event.device_type == DeviceType.CUDA:
            kernels[event.name].append(event.device_time)
        elif event.name in WAITS:
            waits += 1
    times = {name: [len(all_) / calls, round(sum(all_) / len(all_), 2)] for name, all_ in kernels.items()}
    return {
        "launches": sum(len(all_) for all_ in kernels.values()) / calls,
        "waits": max(0, waits - 1) / calls,
        "device_us": round(sum(map(sum, kernels.values())) / calls, 1),
        "kernels": dict(sorted(times.items(), key=lambda item: -item[1][0] * item[1][1])),
    }
