"""Data points as rows in the order they lie in memory: a permuted view (an HWC file seen as CHW) is not copied."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from geodiff.backends.combination import Combination


class StoredRows:
    """rows [n, d]: every data point flattened in storage order; queries are permuted instead of the data.

    data   [N, *shape], any strides
    order  [N] or None: row j is data point order[j] (a copy)
    device where the rows go; None: where data is
    """

    def __init__(self, data: Tensor, order: Tensor | None, device: torch.device | str | None) -> None:
        strides = data.stride()
        dims = list(range(1, data.ndim))
        # Outermost dimension first; a size-1 dimension may stand anywhere and stays in place among equals.
        by_stride = sorted(dims, key=lambda k: -strides[k] if data.shape[k] > 1 else 0)
        if data.is_contiguous() or not data.permute(0, *by_stride).is_contiguous():
            by_stride = dims
        self.shape = tuple(data.shape[1:])
        self._permutation = by_stride
        self._in_order = by_stride == dims
        self._inverse = [0, *(by_stride.index(k) + 1 for k in dims)]
        stored = data.permute(0, *by_stride)
        self._stored_shape = tuple(stored.shape[1:])
        if order is not None:
            stored = stored[order.to(stored.device)]
        self.order = order
        self.rows = stored.to(device).contiguous().detach().flatten(1)
        self.n, self.d = self.rows.shape

    @classmethod
    def of_rows(cls, rows: Tensor, order: Tensor | None) -> Self:
        """Rows [n, d] that lie as they are stored: row j is data point order[j]."""
        made = cls(rows, None, None)
        made.order = order
        return made

    def points(self) -> Tensor:
        """[N, *shape], a view of the rows."""
        return self.unflatten(self.rows)

    def flatten(self, x: Tensor) -> Tensor:
        """[B, *shape] -> [B, d] in storage order."""
        return (x if self._in_order else x.permute(0, *self._permutation)).reshape(x.shape[0], self.d)

    def unflatten(self, x: Tensor) -> Tensor:
        """[B, d] in storage order -> [B, *shape]."""
        x = x.reshape(x.shape[0], *self._stored_shape)
        return x if self._in_order else x.permute(self._inverse)

    @contextmanager
    def flat(self, into: Combination) -> Iterator[Combination]:
        """`into` with all its tensors flat; what is written there is in `into.out` afterwards."""
        out, place = into.out, self.flatten(into.out)
        yield Combination(into.gain, [(factor, self.flatten(values)) for factor, values in into.terms], place)
        if place.data_ptr() != out.data_ptr():  # flattened into a copy
            out.copy_(self.unflatten(place))
        elif not out.is_inference():
            increment_version(out)  # kernels write to addresses: autograd must hear of it

    def original(self, indices: Tensor) -> Tensor:
        """Row numbers -> positions in the data as it was passed in."""
        return indices if self.order is None else self.order.to(indices.device)[indices]

    def places(self, indices: Tensor) -> Tensor:
        """Positions in the data as it was passed in -> row numbers: the inverse of `original`."""
        return indices if self.order is None else self._place.to(indices.device)[indices]

    @cached_property
    def _place(self) -> Tensor:
        assert self.order is not None, "points lie as they were passed in"
        return self.order.argsort()

    def in_storage_order(self, columns: Tensor) -> Tensor:
        """[..., N], one per data point as passed in -> one per row, on the device of the rows."""
        columns = columns.to(self.rows.device)
        return columns if self.order is None else columns[..., self.order.to(columns.device)]

    def mirrored(self) -> Tensor:
        """[d]: the order that mirrors a flat point along the last dimension of its shape."""
        places = torch.arange(self.rows.shape[1], device=self.rows.device)
        return self.flatten(self.unflatten(places[None]).flip(-1))[0]

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__, rows=self.rows.to(device))
        return moved
