"""Argument checks that the reference, the denoiser and the sampler share, so that one mistake always reads the same.

Every message says which argument, what was expected, what was found, and what is allowed. A wrong kind of thing (type
or dtype) is a TypeError, a wrong value or shape a ValueError.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geodiff.base.array_like import as_tensor
from geodiff.base.dtypes import FLOATING, INTEGERS, PRECISE, STORED

# Between these sigma^2, and a squared distance up to 1e14 divided by it, are ordinary numbers even in float32.
SIGMA_MIN = 1e-12
SIGMA_MAX = 1e12

#: Streams of random numbers are seeded with 1,000,003 times the seed and a little more, which must fit 64 bits.
SEED_MAX = 2**32 - 1

DATA_DTYPES = (*STORED, torch.float64)

#: Which ends of a range belong to it, as intervals are written.
Ends = Literal["()", "[)", "(]", "[]"]


def check_sigma(sigma: object, batch: int, *, device: torch.device | str | None = None) -> Tensor:
    """sigma as float64 [B]: one noise level per query.

    sigma: a real number, or a tensor or array of shape [], [1, ...], [B] or [B, 1, ...] (as diffusion code passes it).
    Raises TypeError for anything that is not real (bool, complex, str, ...), ValueError for a shape that does not fit
    `batch` or a level that is not in [SIGMA_MIN, SIGMA_MAX].
    """
    levels = shape_sigma(sigma, batch, device=device)
    check_levels(levels)
    return levels


def shape_sigma(
    sigma: object,
    batch: int,
    *,
    device: torch.device | str | None = None,
    name: str = "sigma",
    what: str = "noise level",
) -> Tensor:
    """`check_sigma` without a look at the values, which torch.compile could not trace.

    name, what: how an error calls the argument, and what it is.
    """
    # At once: as a tensor it would take four operations. Not bool, which is an int; nor an int beyond float64.
    # A tuple and not float | int, which PyTorch 2.6 does not trace.
    if isinstance(sigma, (float, int)) and type(sigma) in (float, int) and abs(sigma) <= SIGMA_MAX:
        return torch.full((batch,), sigma, dtype=torch.float64, device=device or "cpu")
    levels = _real_tensor(sigma, name, what).to(device=device, dtype=torch.float64)
    per_query = levels.ndim > 0 and levels.shape[0] == batch and levels.shape[1:].numel() == 1
    if not (levels.numel() == 1 or per_query):
        raise ValueError(
            f"{name}: expected one {what}, or one for each of B = {batch} queries, found shape {list(levels.shape)}; "
            f"allowed a number, or shape [], [B] or [B, 1, ...]"
        )
    return levels.reshape(-1).expand(batch)


def check_levels(levels: Tensor) -> None:
    """Raise ValueError if a noise level is NaN or not in [SIGMA_MIN, SIGMA_MAX]; nothing while it is `captured`."""
    found = levels.detach()
    if found.numel() == 0 or captured(found):
        return
    low, high = torch.aminmax(found)  # both are NaN if any level is
    if not (low.item() >= SIGMA_MIN and high.item() <= SIGMA_MAX):
        bad = found[~((found >= SIGMA_MIN) & (found <= SIGMA_MAX))]
        raise ValueError(
            f"sigma: expected a positive, finite noise level, found {bad[0].item():.9g}; "
            f"allowed {SIGMA_MIN:g} <= sigma <= {SIGMA_MAX:g}"
        )


def _real_tensor(value: object, name: str, what: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise TypeError(_not_real(name, what, f"a tensor of {_dtype(value.dtype)}"))
        return value
    if not isinstance(value, np.ndarray | numbers.Real) and (
        hasattr(value, "__dlpack__") or hasattr(value, "__array__")
    ):
        return _real_tensor(as_tensor(value, name), name, what)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiu":
            raise TypeError(_not_real(name, what, f"an array of {value.dtype}"))
        return torch.from_numpy(value.astype(np.float64))
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            return torch.tensor(float(value), dtype=torch.float64, device="cpu")
        except OverflowError:  # an int beyond float64
            return torch.tensor(math.inf, dtype=torch.float64, device="cpu")
    raise TypeError(_not_real(name, what, f"{type(value).__name__} {value!r:.60}"))


def _not_real(name: str, what: str, found: str) -> str:
    return f"{name}: expected a real {what}, found {found}; allowed float, int, or a real tensor or array"


def check_query(x: object, shape: Sequence[int], *, dtypes: Sequence[torch.dtype] = PRECISE, name: str = "x") -> Tensor:
    """x itself, once it is known to be finite, of shape [B, *shape] (B may be 0) and of an allowed dtype.

    name: how an error calls it.
    Raises TypeError for something else than a dense tensor of `dtypes`, ValueError for a wrong shape, NaN or Inf.
    """
    x = check_query_shape(x, shape, dtypes=dtypes, name=name)
    check_finite(x, name)
    return x


def check_query_shape(
    x: object, shape: Sequence[int], *, dtypes: Sequence[torch.dtype] = PRECISE, name: str = "x"
) -> Tensor:
    """`check_query` without a look at the values, which torch.compile could not trace."""
    x = check_tensor(x, name, dtypes)
    if x.shape[1:] != tuple(shape) or x.ndim != len(shape) + 1:
        sizes = ", ".join(str(size) for size in shape)
        raise ValueError(
            f"{name}: expected shape [B, {sizes}], found {list(x.shape)}; "
            f"allowed any B >= 0, then the shape of one data point"
        )
    return x


def check_data(data: object, *, dtypes: Sequence[torch.dtype] = DATA_DTYPES) -> Tensor:
    """data as a tensor, once it is known to be [N, *shape] with N >= 1, at least one feature, and of an allowed dtype.

    Values are not read (they may be many, and on disk): `check_finite` does that.
    Raises TypeError for something else than a dense tensor of `dtypes`, ValueError for a shape without points or
    features.
    """
    data = check_tensor(as_tensor(data, "data"), "data", dtypes)
    if data.is_meta:
        raise ValueError(
            "data: expected values, found a tensor on the device meta, which has none; allowed cpu or cuda"
        )
    if data.ndim < 2:
        raise ValueError(
            f"data: expected [N, *shape] with at least one feature dimension, found shape {list(data.shape)}; "
            f"allowed two or more dimensions (N scalars are data[:, None])"
        )
    if data.numel() == 0:
        raise ValueError(
            f"data: expected at least one point and one feature, found none in shape {list(data.shape)}; "
            f"allowed N >= 1 and every feature dimension >= 1"
        )
    return data


def check_tensor(value: object, name: str, dtypes: Sequence[torch.dtype]) -> Tensor:
    """value itself, once it is known to be a dense tensor of one of `dtypes`; else TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor, found {type(value).__name__}; allowed {_dtypes(dtypes)} tensors"
        )
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected a supported dtype, found {_dtype(value.dtype)}; allowed {_dtypes(dtypes)}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, found layout {value.layout}; allowed {name}.to_dense()")
    return value


def check_device(value: Tensor, name: str, device: torch.device) -> None:
    """Raise ValueError if value lies elsewhere than the data do, on `device`: nothing large is moved unasked."""
    if value.device != device:
        raise ValueError(
            f"{name}: expected on the device of the data, {device}, found on {value.device}; "
            f"allowed {name}.to({str(device)!r}), or data that are moved there"
        )


def check_place(device: torch.device) -> torch.device:
    """device itself, unless values cannot lie there."""
    if device.type == "meta":
        raise ValueError("device: expected one that holds values, found meta; allowed cpu or cuda")
    return device


def captured(value: Tensor) -> bool:
    """Whether what is done with value is being recorded into a CUDA graph: its values are not there yet to look at."""
    return value.is_cuda and torch.cuda.is_current_stream_capturing()


def check_finite(value: Tensor, name: str, *, first_row: int = 0) -> None:
    """Raise ValueError if value [n, ...] holds NaN or Inf; nothing while it is `captured`.

    `first_row` is the row number of value[0] in the message. One pass over the values and no temporary of their size.
    """
    if value.numel() == 0 or not value.is_floating_point() or captured(value):
        return
    low, high = torch.aminmax(value.detach())  # both are NaN if any value is
    if math.isfinite(low.item()) and math.isfinite(high.item()):
        return
    for row, point in enumerate(value.detach(), start=first_row):
        bad = point[~torch.isfinite(point)]
        if bad.numel():
            raise ValueError(
                f"{name}: expected finite values, found {bad[0].item()} in row {row}; allowed no NaN, no Inf"
            )


def check_topk(topk: object, n: int) -> int:
    """topk as an int in 0..n; TypeError for something else than an integer, ValueError outside the range."""
    return check_integer(topk, "topk", 0, n)


def check_integer(value: object, name: str, low: int, high: int | None = None) -> int:
    """value as an int in low..high, or from low on; TypeError if it is no integer, ValueError outside the range."""
    allowed = f"{low}..{high}" if high is not None else f"{low} or more"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, found {type(value).__name__} {value!r:.60}; allowed {allowed}")
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}: expected an integer in range, found {number}; allowed {allowed}")
    return number


def check_number(value: object, name: str, low: float, high: float = math.inf, *, ends: Ends = "(]") -> float:
    """value as a finite float from low to high; TypeError if it is no real number, ValueError outside.

    ends: which of low and high are allowed themselves, as intervals are written
    """
    allowed = _interval(name, low, high, ends)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name}: expected a real number, found {type(value).__name__} {value!r:.60}; allowed {allowed}"
        )
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        number = -math.inf if value < 0 else math.inf
    above = number >= low if ends[0] == "[" else number > low
    below = number <= high if ends[1] == "]" else number < high
    if not (above and below and math.isfinite(number)):
        raise ValueError(f"{name}: expected a number in range, found {number:g}; allowed {allowed}")
    return number


def _interval(name: str, low: float, high: float, ends: Ends) -> str:
    """How an error says low < name <= high."""
    above, below = "<=" if ends[0] == "[" else "<", "<=" if ends[1] == "]" else "<"
    if low == -math.inf and high == math.inf:
        return f"any finite {name}"
    if high == math.inf:
        return f"{name} {above.replace('<', '>')} {low:g}"
    return f"{name} {below} {high:g}" if low == -math.inf else f"{low:g} {above} {name} {below} {high:g}"


def check_reals(values: object, name: str, shape: str, at_least: int) -> Tensor:
    """values as float64 [n] on the CPU, n >= at_least: from a tensor, array or list; `shape` is how to say [n].

    Raises TypeError for something else, ValueError for other dimensions or too few numbers.
    """
    allowed = f"allowed a tensor, array or list {shape} of {at_least} or more real numbers"
    try:
        # A list goes to float64 at once, where torch by itself would round it to float32.
        dtype = None if isinstance(values, np.ndarray) else torch.float64
        vector = values.detach() if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"{type(values).__name__} {values!r:.60}"
        raise TypeError(f"{name}: expected real numbers, found {found}; {allowed}") from error
    if vector.dtype == torch.bool or vector.is_complex():
        raise TypeError(f"{name}: expected real numbers, found {_dtype(vector.dtype)}; {allowed}")
    if vector.ndim != 1 or len(vector) < at_least:
        raise ValueError(f"{name}: expected shape {shape}, found {list(vector.shape)}; {allowed}")
    return vector.to("cpu", torch.float64)


def check_log_weights(log_weights: object, n: int, *, device: torch.device | str | None = None) -> Tensor:
    """log pi_i = log_weights_i - logsumexp(log_weights), float64 [N]: the prior weights of the points, normalised.

    log_weights: real [N], a tensor, array or list; -inf leaves a point out. Raises TypeError for something else,
    ValueError for a wrong shape, NaN, +inf, or nothing but -inf.
    """
    weights = shape_log_weights(log_weights, n).to(device=device, dtype=torch.float64)
    highest = weights.detach().max().item()  # NaN if any is
    if not math.isfinite(highest):
        raise ValueError(
            f"log_weights: expected finite numbers or -inf, found a maximum of {highest}; "
            f"allowed no NaN, no +inf, at least one above -inf"
        )
    return weights.log_softmax(0)


def shape_log_weights(log_weights: object, n: int) -> Tensor:
    """`check_log_weights` without a look at the values, which are neither normalised nor moved."""
    log_weights = as_tensor(log_weights, "log_weights", listed=torch.float64)
    log_weights = check_tensor(log_weights, "log_weights", FLOATING)
    if log_weights.shape != (n,):
        raise ValueError(
            f"log_weights: expected shape [N] = [{n}], found {list(log_weights.shape)}; "
            f"allowed one number per data point"
        )
    return log_weights


def check_exclude(exclude: object, batch: int, n: int) -> Tensor:
    """exclude, integers [B], as int64: one of the n points for each query, or -1. Else TypeError or ValueError."""
    exclude = shape_exclude(exclude, batch)
    if batch:
        least, most = map(int, exclude.aminmax())
        if least < -1 or most >= n:
            found = least if least < -1 else most
            allowed = f"allowed 0 .. {n - 1}, or -1 for none"
            raise ValueError(f"exclude: expected points of the data, found {found}; {allowed}")
    return exclude


def shape_exclude(exclude: object, batch: int) -> Tensor:
    """`check_exclude` without a look at the values, which torch.compile could not trace."""
    exclude = check_tensor(as_tensor(exclude, "exclude"), "exclude", INTEGERS).long()
    if exclude.shape != (batch,):
        raise ValueError(
            f"exclude: expected shape [B] = [{batch}], found {list(exclude.shape)}; allowed one point per query, or -1"
        )
    return exclude


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtypes(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(_dtype(dtype) for dtype in dtypes)
