"""The steps that the fused denoiser is made of, for work that needs one without the others.

A tensor of data is looked through once, at the first call with it, and remembered as long as it lives unchanged. All
tensors of a call lie on one device.
"""

import math

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from geodiff import backends
from geodiff.backends import Engine
from geodiff.base.arguments import captured, check_data, check_device, check_finite, check_query_shape, check_tensor
from geodiff.base.dtypes import FLOATING, STORED
from geodiff.denoiser.storage import StoredRows

__all__ = ["inner_products", "refine", "weighted_mean"]

_opened: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def inner_products(x: Tensor, data: Tensor) -> Tensor:
    """g_qi = <x_q, x_i>, [B, N] in the dtype of x.

    x [B, *shape] floating; data [N, *shape], uint8 u meaning u/127.5 - 1. Summed in integers (uint8, x to 32 bits) or
    in float64: the error is that of rounding the result, plus 1e-8 |x| |x_i|.
    Raises TypeError or ValueError that names the argument.
    """
    stored, engine = _open(data)
    x = _check_queries(x, stored)
    return _rounded(engine.inner_products(stored.flatten(x)), x.dtype, "x")


def weighted_mean(logits: Tensor, data: Tensor, *, tol: float = 1e-5) -> Tensor:
    """r_q = sum_i softmax_i(l_q) x_i, [B, *shape] in the dtype of the logits.

    logits [B, N] floating; -inf leaves a point out. Off by at most tol max(|r|, 0.01 max_i |x_i|), which lets tiles of
    rows whose weights are negligible go unread. Raises TypeError or ValueError that names the argument.
    """
    stored, engine = _open(data)
    n = len(stored.rows)
    logits = check_tensor(logits, "logits", FLOATING)
    check_device(logits, "logits", data.device)
    if logits.ndim != 2 or logits.shape[1] != n:
        raise ValueError(f"logits: expected shape [B, N] = [B, {n}], found {list(logits.shape)}; allowed any B >= 0")
    if not torch.isfinite(logits.amax(1)).all():
        raise ValueError(
            "logits: expected numbers or -inf, found a row whose maximum is NaN, inf or -inf; "
            "allowed no NaN, and at least one number above -inf in each row"
        )
    return _rounded(stored.unflatten(engine.weighted_mean(logits, tol)), logits.dtype, "logits")


def refine(x: Tensor, data: Tensor, candidates: Tensor) -> Tensor:
    """D_qj = |x_q - x_c|^2, c = candidates[q, j], [B, C] float64: in float64 difference form, where nothing cancels.

    x [B, *shape] floating; candidates int64 [B, C], positions in data; -1 marks an empty place and gives infinity.
    Raises TypeError or ValueError that names the argument.
    """
    stored, engine = _open(data)
    x = _check_queries(x, stored)
    candidates = check_tensor(candidates, "candidates", (torch.int64,))
    check_device(candidates, "candidates", data.device)
    if candidates.ndim != 2 or len(candidates) != len(x):
        raise ValueError(
            f"candidates: expected shape [B, C] with B = {len(x)}, found {list(candidates.shape)}; "
            f"allowed one row of positions per query"
        )
    outside = candidates[(candidates < -1) | (candidates >= len(stored.rows))]
    if outside.numel():
        raise ValueError(
            f"candidates: expected positions in data, found {int(outside[0])}; allowed -1 .. {len(stored.rows) - 1}"
        )
    return engine.squared_distances(stored.flatten(x), candidates)


def _rounded(found: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """What was found in the dtype of the argument `name`; ValueError where that does not hold it."""
    answer = found.to(dtype)
    if answer.numel() == 0 or captured(answer):
        return answer
    if not all(math.isfinite(end.item()) for end in answer.aminmax()):
        raise ValueError(
            f"{name}: expected a dtype that holds the answer, found {dtype} for numbers up to "
            f"{found.abs().amax().item():g}; allowed {name}.double()"
        )
    return answer


def _check_queries(x: object, stored: StoredRows) -> Tensor:
    x = check_query_shape(x, stored.shape, dtypes=FLOATING)
    check_device(x, "x", stored.rows.device)
    check_finite(x, "x")
    return x


def _open(data: Tensor) -> tuple[StoredRows, Engine]:
    data = check_data(data, dtypes=STORED)
    version, found = _opened.get(data, (None, None))
    if found is None or version != data._version:
        stored = StoredRows(data, None, None)
        found = (stored, backends.open_engine(backends.choose("auto", data.device, dtype=data.dtype), stored.rows))
        _opened[data] = (data._version, found)
    return found
