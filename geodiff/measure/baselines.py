"""What people use today for the same job, each as a callable to be timed beside our kernels.

Every peer takes x [B, d] float32 and one sigma, and answers r [B, d] float32. Data are given to it once, in the form it
wants, and that form's memory is its own affair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geodiff import reference
from geodiff.measure.stopwatch import Denoise, Timed, timed


class PeerFailed(RuntimeError):
    """A peer has no answer to a query; the message is what a table says about it."""


@dataclass(frozen=True)
class Peer:
    """A named way to compute r*(x; sigma); `timed` is None where it cannot run here, and `reason` says why.

    `timed` raises PeerFailed, whatever went wrong in the peer.
    """

    name: str
    timed: Timed | None
    reason: str = ""


#: Name -> one line on what it is; the order of tables.
DESCRIPTIONS = {
    "torch-softmax": "float32: softmax((x X^T - |x_i|^2/2) / sigma^2) X",
    "torch-addmm": "float32: the same with the bias and the scale inside addmm",
    "torch-sdpa": "float32: scaled_dot_product_attention with the bias as mask",
    "torch-compile": "float32: torch.compile of torch-softmax",
    "torch-bfloat16": "bfloat16: torch-softmax with both products in bfloat16",
    "keops": "float32: KeOps LazyTensor, sumsoftmaxweight",
    "faiss-200": "float32: FAISS exact search, softmax over the 200 nearest",
    "naive": "float32: one query at a time, squared differences",
}
#: The float32 forms of plain PyTorch; the fastest of them in a cell is what ratios are given to.
BASELINES = ("torch-softmax", "torch-addmm", "torch-sdpa", "torch-compile")
#: Their first call with a new shape compiles, which is no part of the time of a call.
COMPILED = ("torch-compile", "keops")
#: They bring an OpenMP runtime of their own (FAISS's wheel), or one that a compiler finds for them on the machine
#: (KeOps), and its idle threads spin on the cores that the others in the same process want: see baseline_process.py.
OWN_PROCESS = ("faiss-200", "keops")


def known(names: Sequence[str] | None) -> list[str]:
    """The names of peers as given (default: all of them). Raises ValueError for one that there is not."""
    wanted = list(DESCRIPTIONS if names is None else names)
    unknown = [name for name in wanted if name not in DESCRIPTIONS]
    if unknown:
        raise ValueError(f"peers: expected known names, found {unknown}; allowed {list(DESCRIPTIONS)}")
    return wanted


def model_points(data: Tensor) -> Tensor:
    """The points that every peer is made over: data [N, *shape] as float32 [N, d], in model space."""
    return reference.model_space(data.flatten(1), torch.float32).contiguous()


def made(name: str, points: Tensor) -> Denoise:
    """The named peer over points [N, d], on the device where they are. Raises ImportError, naming what is missing."""
    try:
        return reporting(_MAKERS[name](points))
    except ImportError as error:
        raise ImportError(f"not installed: {error.name}", name=error.name) from error


def in_process(name: str, points: Tensor) -> Peer:
    """The named peer over points [N, d], in this process."""
    try:
        return Peer(name, timed(made(name, points)))
    except ImportError as error:
        return Peer(name, None, str(error))


def reporting(denoise: Denoise) -> Denoise:
    """The same function, raising PeerFailed in place of any other error, so that a table can say why."""

    def reported(x: Tensor, sigma: float) -> Tensor:
        try:
            return denoise(x, sigma)
        except Exception as error:
            lines = str(error).strip().splitlines() or ["no message"]
            raise PeerFailed(f"{type(error).__name__}: {lines[-1][:80]}") from error

    return reported


def _softmax(points: Tensor) -> Denoise:
    half_norms = points.square().sum(1) / 2
    return lambda x, sigma: reference.two_product(x, points, sigma, half_norms)


def _addmm(points: Tensor) -> Denoise:
    half_norms = points.square().sum(1) / 2

    def denoise(x: Tensor, sigma: float) -> Tensor:
        logits = torch.addmm(half_norms, x, points.T, beta=-1 / sigma**2, alpha=1 / sigma**2)
        return torch.softmax(logits, 1) @ points

    return denoise


def _sdpa(points: Tensor) -> Denoise:
    half_norms = points.square().sum(1) / 2

    def denoise(x: Tensor, sigma: float) -> Tensor:
        bias = (-half_norms / sigma**2).expand(len(x), -1)
        return torch.nn.functional.scaled_dot_product_attention(x, points, points, bias, scale=1 / sigma**2)

    return denoise


def _compile(points: Tensor) -> Denoise:
    half_norms = points.square().sum(1) / 2

    @torch.compile(dynamic=False)
    def step(x: Tensor, inverse: Tensor) -> Tensor:
        return torch.softmax((x @ points.T - half_norms) * inverse, 1) @ points

    return lambda x, sigma: step(x, torch.tensor(1 / sigma**2))


def _bfloat16(points: Tensor) -> Denoise:
    half_norms, small = points.square().sum(1) / 2, points.bfloat16()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        logits = (x.bfloat16() @ small.T).float() - half_norms
        return (torch.softmax(logits / sigma**2, 1).bfloat16() @ small).float()

    return denoise


def _keops(points: Tensor) -> Denoise:
    from pykeops.torch import LazyTensor

    columns = LazyTensor(points[None])  # [1, N, d]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        logits = -((LazyTensor(x[:, None]) - columns) ** 2).sum(-1) / (2 * sigma**2)
        return logits.sumsoftmaxweight(columns, dim=1)

    return denoise


def _faiss(points: Tensor, nearest: int = 200) -> Denoise:
    import faiss
    import faiss.contrib.torch_utils  # from here on an index takes tensors

    index: Any
    if points.device.type == "cpu":
        index = faiss.IndexFlatL2(points.shape[1])
        faiss.omp_set_num_threads(torch.get_num_threads())
    elif hasattr(faiss, "GpuIndexFlatL2"):
        index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), points.shape[1])
    else:
        raise ImportError("this faiss has no GPU indexes", name="faiss-gpu")
    index.add(points)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        distances, rows = index.search(x, min(nearest, len(points)))
        weights = torch.softmax(distances / (-2 * sigma**2), 1)
        return torch.bmm(weights[:, None], points[rows])[:, 0]

    return denoise


def _naive(points: Tensor) -> Denoise:
    def denoise(x: Tensor, sigma: float) -> Tensor:
        out = []
        for query in x:
            weights = torch.softmax(-(query - points).square().sum(1) / (2 * sigma**2), 0)
            out.append((weights[:, None] * points).sum(0))
        return torch.stack(out)

    return denoise


_MAKERS: dict[str, Callable[[Tensor], Denoise]] = {
    "torch-softmax": _softmax,
    "torch-addmm": _addmm,
    "torch-sdpa": _sdpa,
    "torch-compile": _compile,
    "torch-bfloat16": _bfloat16,
    "keops": _keops,
    "faiss-200": _faiss,
    "naive": _naive,
}
