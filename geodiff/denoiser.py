"""The optimal denoiser over a data set, as a module that takes the place of a denoising network."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from geodiff import backends
from geodiff.arguments import check_data, check_log_weights, check_query, check_sigma, check_topk
from geodiff.backends import Engine
from geodiff.data import load
from geodiff.labels import check_labels, check_requested_classes
from geodiff.posterior import Posterior
from geodiff.storage import StoredRows

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
QUERY_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: The kernels accumulate in float32: what they cannot promise is not accepted.
TOL_MIN, TOL_MAX = 1e-6, 1e-1


class OptimalDenoiser(nn.Module):
    """r*(x; sigma) = sum_i w_i x_i, w = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2) (arXiv 2305.19947).

    data         [N, *shape] tensor or array, or a path or name that `geodiff.data.load` knows. uint8 u means
                 u/127.5 - 1; float16, bfloat16 and float32 are taken as they are. Kept in its own dtype; a tensor that
                 already lies right is not copied. Do not change it afterwards.
    labels       int [N], 0 <= label < K: makes the denoiser class-conditional. Rows are then stored sorted by class.
    log_weights  [N]: pi = softmax(log_weights); default all alike
    backend      "auto", or a name from `geodiff.backends.available()`
    device       where data is kept; default: where it is
    tol          relative error allowed in every output: |r - r64| <= tol max(|r64|, 0.01 max_i |x_i|), r64 in float64

    Attributes: mean [*shape] (the limit sigma -> infinity), backend, data, shape, and those that EDM's sampler reads:
    sigma_min, sigma_max, img_channels, img_resolution, label_dim.

    Raises TypeError or ValueError that names the argument, DataError for a damaged file, BackendUnavailable.
    """

    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(
        self,
        data: Tensor | np.ndarray | str | os.PathLike[str],
        *,
        labels: Tensor | np.ndarray | None = None,
        log_weights: Tensor | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        tol: float = 1e-5,
    ) -> None:
        super().__init__()
        if isinstance(data, str | os.PathLike | np.ndarray):
            data = load(data).data
        data = check_data(data, dtypes=DTYPES)
        if isinstance(tol, bool) or not isinstance(tol, int | float) or not TOL_MIN <= tol <= TOL_MAX:
            raise ValueError(
                f"tol: expected a relative error, found {tol!r}; allowed {TOL_MIN:g} <= tol <= {TOL_MAX:g}"
            )
        self.tol = float(tol)
        n = len(data)
        self.label_dim = 0
        order = None
        self._starts: list[int] = [0, n]  # rows of class k: _starts[k] .. _starts[k+1]
        if labels is not None:
            classes = check_labels(labels, n)
            self.label_dim = int(classes.max()) + 1
            counts = torch.bincount(classes, minlength=self.label_dim)
            self._starts = [0, *counts.cumsum(0).tolist()]
            if (classes.diff() < 0).any():
                order = classes.argsort(stable=True)
        self._stored = StoredRows(data, order, device)
        prior = None
        if log_weights is not None:
            prior = check_log_weights(log_weights, n, device=self._stored.rows.device)
            prior = prior if order is None else prior[order.to(prior.device)]
        self._log_prior = prior
        self._backend_asked = backend
        self.backend = self._choose(self._stored.rows.device)
        self._engine: Engine | None = backends.open_engine(self.backend, self._stored.rows)

    # ---- what it knows about itself ----

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
        return self._stored.unflatten(self._open().mean[None])[0].float()

    @property
    def img_channels(self) -> int:
        """C of a shape [C, H, W]; AttributeError for data that are not images."""
        return self._image_shape()[0]

    @property
    def img_resolution(self) -> int:
        """W of a shape [C, H, W]; AttributeError for data that are not images."""
        return self._image_shape()[2]

    def _image_shape(self) -> tuple[int, ...]:
        if len(self.shape) != 3:
            raise AttributeError(f"data points of shape {self.shape} are not images [C, H, W]")
        return self.shape

    @staticmethod
    def round_sigma(sigma: Any) -> Tensor:
        """sigma as a tensor: every level is allowed (a network trained on a grid of levels would round here)."""
        return torch.as_tensor(sigma)

    # ---- what it computes ----

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """r*(x; sigma), [B, *shape] in the dtype of x.

        x            [B, *shape] floating, in model space, B >= 0
        sigma        a number, 0-d, [B] or [B, 1, ...], > 0
        class_labels int [B] or one-hot [B, K]: each query sees the data of its class only; None: all data
        """
        return self.posterior(x, sigma, class_labels).mean

    def score(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """grad_x log p_sigma(x) = (r*(x; sigma) - x) / sigma^2, [B, *shape]; arguments as in `forward`."""
        denoised = self.posterior(x.double() if isinstance(x, Tensor) else x, sigma, class_labels).mean
        levels = check_sigma(sigma, len(x), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        return ((denoised - x) / levels.square()).to(x.dtype)

    def log_prob(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """log p_sigma(x) = logsumexp_i(log pi_i - |x - x_i|^2 / 2 sigma^2) - (d/2) log 2 pi sigma^2, [B]."""
        return self.posterior(x, sigma, class_labels).log_prob

    @torch.no_grad()
    def posterior(
        self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, topk: int = 0
    ) -> Posterior:
        """The posterior over data points given x = x_i + sigma z, in summary: see `Posterior` and `forward`.

        topk: how many of the heaviest points to name, 0..N; `indices` count in the order of the `data` passed in.
        mean, entropy, ess and weights come in the dtype of x; log_prob too, but at least in float32.
        """
        x = check_query(x, self.shape, dtypes=QUERY_DTYPES)
        levels = check_sigma(sigma, len(x), device=x.device)
        wanted = check_requested_classes(class_labels, len(x), self.label_dim)
        engine = self._open()
        flat = self._stored.flatten(x)
        parts = [self._part(engine, flat, levels, rows, chosen, topk) for rows, chosen in self._groups(wanted, len(x))]
        answer = parts[0][1] if len(parts) == 1 else _scatter(parts, len(x))
        small = x.dtype if x.dtype == torch.float64 else torch.float32
        return Posterior(
            mean=self._stored.unflatten(answer.mean).to(x.device, x.dtype),
            log_prob=answer.log_prob.to(x.device, small),
            entropy=answer.entropy.to(x.device, small),
            ess=answer.ess.to(x.device, small),
            indices=self._stored.original(answer.indices).to(x.device),
            weights=answer.weights.to(x.device, small),
        )

    @property
    def capturable(self) -> bool:
        """Whether `unchecked` can be recorded into a CUDA graph: its backend never waits for the device."""
        return self._open().capturable

    @torch.no_grad()
    def unchecked(self, x: Tensor, sigma: Tensor) -> Tensor:
        """r*(x; sigma) as `forward`, without the checks of its arguments, which wait for the device.

        x [B, *shape] finite, where the data are; sigma float64 [B], positive, in the same place.
        """
        answer = self._open().posterior(
            self._stored.flatten(x),
            sigma,
            topk=0,
            tol=self.tol,
            log_prior=self._log_prior,
            rows=range(self._starts[-1]),
        )
        return self._stored.unflatten(answer.mean).to(x.dtype)

    def _groups(self, wanted: Tensor | None, batch: int) -> Iterator[tuple[range, Tensor | None]]:
        """(rows, queries) that go together: everything (None), or the queries of each class that is asked for."""
        if wanted is None or batch == 0:
            yield range(self._starts[-1]), None
            return
        for label in wanted.unique().tolist():
            yield range(self._starts[label], self._starts[label + 1]), (wanted == label).nonzero()[:, 0]

    def _part(
        self, engine: Engine, x: Tensor, sigma: Tensor, rows: range, chosen: Tensor | None, topk: int
    ) -> tuple[Tensor | None, Posterior]:
        if chosen is not None:
            x, sigma = x[chosen], sigma[chosen]
        topk = check_topk(topk, len(rows))
        prior = self._log_prior
        if prior is not None and len(rows) < len(prior):  # the class alone: its weights sum to 1
            prior = prior - prior[rows.start : rows.stop].logsumexp(0)
        return chosen, engine.posterior(x, sigma, topk=topk, tol=self.tol, log_prior=prior, rows=rows)

    def _choose(self, device: torch.device) -> str:
        (n, d), dtype = self._stored.rows.shape, self._stored.rows.dtype
        return backends.choose(self._backend_asked, device, dtype=dtype, n=n, d=d)

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine = backends.open_engine(self.backend, self._stored.rows)
        return self._engine

    # ---- moving and copying ----

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows .to(device), .cuda(), .cpu(); never changes the dtype of the data (.half() is for weights)."""
        device = fn(torch.empty(0, device=self._stored.rows.device)).device
        if device != self._stored.rows.device:
            self.backend = self._choose(device)
            self._stored = self._stored.to(device)
            self._log_prior = None if self._log_prior is None else self._log_prior.to(device)
            self._engine = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The engine holds addresses: a copy or a loaded pickle opens its own.
        return {**self.__dict__, "_engine": None}

    def extra_repr(self) -> str:
        """One line for print(denoiser)."""
        rows = self._stored.rows
        classes = f", classes={self.label_dim}" if self.label_dim else ""
        stored = f"N={len(rows)}, shape={self.shape}, dtype={rows.dtype}"
        return f"{stored}{classes}, backend={self.backend!r}, tol={self.tol:g}"


def _scatter(parts: list[tuple[Tensor | None, Posterior]], batch: int) -> Posterior:
    """The answers of groups of queries, in the order of the batch."""

    def joined(name: str) -> Tensor:
        first = getattr(parts[0][1], name)
        out = first.new_empty(batch, *first.shape[1:])
        for chosen, part in parts:
            out[chosen] = getattr(part, name)
        return out

    return Posterior(*(joined(name) for name in ("mean", "log_prob", "entropy", "ess", "indices", "weights")))
