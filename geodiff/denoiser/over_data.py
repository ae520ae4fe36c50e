"""What denoisers over a data set have in common: the data as they are taken, conditions of a call, moves and copies."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from geodiff.backends.query import FLOAT64
from geodiff.base.arguments import (
    check_data,
    check_device,
    check_log_weights,
    check_number,
    check_place,
    check_query_shape,
    shape_exclude,
    shape_sigma,
)
from geodiff.base.array_like import Array
from geodiff.base.dtypes import FLOATING, STORED
from geodiff.data import float_pixels, load
from geodiff.data.labels import check_labels, group, shape_requested_classes
from geodiff.data.layout import is_hwc
from geodiff.denoiser.conditioning import Batch, Conditioning, check_mask
from geodiff.denoiser.mirroring import Mirror
from geodiff.denoiser.network_interface import LikeNetwork
from geodiff.denoiser.operators import transformed
from geodiff.denoiser.point_set import PointSet
from geodiff.denoiser.storage import StoredRows

#: The kernels accumulate in float32: what they cannot promise is not accepted.
TOL_MIN, TOL_MAX = 1e-6, 1e-1


class Options(NamedTuple):
    """What goes with the data: see `OptimalDenoiser`."""

    labels: Array | None = None
    log_weights: Array | None = None
    backend: str = "auto"
    device: torch.device | str | None = None
    tol: float = 1e-5
    augment: Literal["hflip"] | None = None


class OverData(LikeNetwork):
    """Data that are kept as they are stored, and batches of queries about them; what is asked is up to subclasses."""

    #: dtypes of data that are taken
    _dtypes: Sequence[torch.dtype] = STORED
    _points: PointSet

    def __init__(self, data: Array | str | os.PathLike[str], options: Options) -> None:
        super().__init__()
        labels, log_weights, backend, device, tol, augment = options
        latent = False
        if isinstance(data, str | os.PathLike):
            dataset = load(data)
            data, latent = dataset.data, dataset.latent
        data = check_data(data, dtypes=self._dtypes)
        if not latent:
            float_pixels.warn_of_pixel_range(data, "data", stacklevel=4)
        self.tol = check_number(tol, "tol", TOL_MIN, TOL_MAX, ends="[]")
        if augment not in (None, "hflip"):
            raise ValueError(f"augment: expected a known augmentation, found {augment!r}; allowed None, 'hflip'")
        if augment is not None and latent:
            raise ValueError(
                f"augment: expected None for latents, whose mirror image is not the latent of the mirrored picture, "
                f"found {augment!r}; allowed data with the latents of mirrored pictures among them"
            )
        if augment == "hflip" and data.ndim < 3:
            raise ValueError(
                f"augment: expected data with rows and columns for 'hflip', found points of shape "
                f"{list(data.shape[1:])}; allowed [..., H, W]"
            )
        # Four may as well be the columns of a small picture.
        if augment == "hflip" and is_hwc(data.shape) and data.shape[3] < 4:
            warnings.warn(
                f"augment: 'hflip' mirrors along the last dimension, where points of shape {list(data.shape[1:])} seem "
                f"to have their channels; if they are [H, W, C], pass data.permute(0, 3, 1, 2), which is not copied",
                stacklevel=3,
            )
        self.augment = augment
        n = len(data)
        self.label_dim = 0
        order = groups = None
        if labels is not None:
            classes = check_labels(labels, n)
            self.label_dim = int(classes.max()) + 1
            order, groups = group(classes)
        stored = StoredRows(data, order, None if device is None else check_place(torch.device(device)))
        prior = None
        if log_weights is not None:
            prior = stored.in_storage_order(check_log_weights(log_weights, n, device=stored.rows.device))
        mirror = Mirror(stored.mirrored()) if augment == "hflip" else None
        serving = self._backend_of_points(backend, data.dtype)
        self._points = PointSet(Conditioning(stored, groups, prior), mirror, serving)
        self._points.engines.serving()  # opened here: data that will not do are refused at once

    @staticmethod
    def _backend_of_points(backend: str, dtype: torch.dtype) -> str:
        """The backend of the optimal denoiser, which knows mean and reach of the data: as a rule the one asked for."""
        return backend

    @property
    def _stored(self) -> StoredRows:
        return self._points.stored

    @property
    def data(self) -> Tensor:
        """The data as stored, [N, *shape]; with labels, sorted by class."""
        return self._stored.points()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one data point."""
        return self._stored.shape

    @property
    def mean(self) -> Tensor:
        """sum_i x_i / N in model space, [*shape] float32: the limit of r* for sigma to infinity (log_weights aside)."""
        return self._stored.unflatten(self._points.mean[None])[0].float()

    def _batch(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Any,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Batch:
        """Shapes and dtypes are checked here, values where they are used, which torch.compile does not look into."""
        stored = self._stored
        x = check_query_shape(x, stored.shape, dtypes=FLOATING)
        check_device(x, "x", stored.rows.device)
        size = x.shape[0]  # len(x) takes longer than the rest of this line, for a call of microseconds
        levels = shape_sigma(sigma, size, device=x.device)
        classes = shape_requested_classes(class_labels, size, self.label_dim)
        if mask is not None:
            mask = check_mask(mask, size, self._points.n)
        if exclude is not None:
            exclude = self._shape_exclude(exclude, size)
        followed = (torch.is_grad_enabled() and (x.requires_grad or levels.requires_grad)) or transformed()
        # What is done with gradients in float64 (finite differences, second-order steps) sees errors of 1e-5.
        tol = FLOAT64 if x.dtype == torch.float64 and followed else self.tol
        flat = stored.flatten(x if x.dtype == torch.float64 else x.float())
        return Batch(flat, levels, classes, mask, exclude, tol)

    def _shape_exclude(self, exclude: Tensor, batch: int) -> Tensor:
        """exclude int64 [batch], a mirror image standing for its point, as in `Posterior.indices`."""
        exclude = shape_exclude(exclude, batch)
        if self.augment is None:
            return exclude
        n = self._points.n
        return torch.where((exclude >= n) & (exclude < 2 * n), exclude - n, exclude)

    # ---- moving and copying ----

    def get_extra_state(self) -> Tensor:
        """What `state_dict` holds: uint8 [32], a digest of the data and what goes with them. Takes a pass over them."""
        return torch.frombuffer(bytearray(self._points.digest()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Raises ValueError where a `state_dict` is of a denoiser over other data: nothing could be loaded from it."""
        found = bytes(torch.as_tensor(state, device="cpu").tolist()).hex()
        mine = self._points.digest().hex()
        if found != mine:
            raise ValueError(
                f"state_dict: expected that of a denoiser over the same data, labels and weights ({mine[:12]}...), "
                f"found one over others ({found[:12]}...); allowed a denoiser made with those, or a pickle of it"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows .to(device), .cuda(), .cpu(); never changes the dtype of the data (.half() is for weights)."""
        device = check_place(fn(torch.empty(0, device=self._stored.rows.device)).device)
        if device != self._stored.rows.device:
            self._points = self._points.to(device)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        """One line for print(denoiser)."""
        rows = self._stored.rows
        classes = f", classes={self.label_dim}" if self.label_dim else ""
        augment = f", augment={self.augment!r}" if self.augment else ""
        stored = f"N={len(rows)}, shape={self.shape}, dtype={rows.dtype}"
        return f"{stored}{classes}{augment}, backend={self.backend!r}, tol={self.tol:g}"


def precise(x: Tensor) -> torch.dtype:
    """The dtype that numbers about x come in: that of x, but at least float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
