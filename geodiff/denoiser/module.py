"""The optimal denoiser over a data set, as a module that takes the place of a denoising network."""

import os
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from geodiff.backends.combination import Combination, Term
from geodiff.base.arguments import check_device, check_query_shape, check_topk, shape_sigma
from geodiff.base.array_like import Array
from geodiff.base.dtypes import FLOATING, PRECISE
from geodiff.base.per_point import per_point
from geodiff.base.posterior import Posterior
from geodiff.denoiser.array_queries import of_any_kind
from geodiff.denoiser.batch_answer import BatchAnswer
from geodiff.denoiser.merging import Ranks
from geodiff.denoiser.operators import recorded
from geodiff.denoiser.over_data import Options, OverData, precise
from geodiff.denoiser.point_set import FIELDS
from geodiff.denoiser.velocity import Moment, velocity
from geodiff.paths import LINEAR, Path


class OptimalDenoiser(OverData):
    """r*(x; sigma) = sum_i w_i x_i, w = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2) (arXiv 2305.19947).

    data         [N, *shape] tensor, array, list or anything with __dlpack__ or __array__, or a path or name that
                 `geodiff.data.load` knows. uint8 u means u/127.5 - 1; float16, bfloat16 and float32 are taken as they
                 are, with a warning for pictures in 0..1 or 0..255. Kept in its own dtype; a tensor or array that
                 already lies right is not copied. It may move (to shared memory, say), and PyTorch's operations may
                 change it; other changes (NumPy's) are refused when noticed.
    labels       int [N], 0 <= label < K: makes the denoiser class-conditional. Rows are then stored sorted by class.
    log_weights  [N]: pi = softmax(log_weights); default all alike
    backend      "auto", or a name from `geodiff.backends.available()`. "auto" goes by `geodiff.backends.explain()`,
                 call by call: on a GPU a few queries may have another backend than many
    device       where data is kept; default: where it is
    tol          relative error allowed in every output: |r - r64| <= tol max(|r64|, 0.01 max_i |x_i|), r64 in float64
    augment      "hflip": as if every point's mirror image (along the last dimension, the columns of [C, H, W]) were in
                 the data too, each pair sharing its weight. Nothing is stored for it; a call costs what two cost. Copy
                 of point i: index N + i

    Attributes: mean [*shape] (the limit sigma -> infinity), backend (the one for any number of queries), data, shape,
    and those that EDM's sampler reads: sigma_min, sigma_max, img_channels, img_resolution, label_dim.

    Differentiable in x and sigma: `forward`, `score` and `log_prob`, in reverse and forward mode, with torch.func, and
    twice (the second time through `geodiff.reference`, at its price); J = Cov_w / sigma^2 is symmetric. A gradient is
    one more pass over the data and stores nothing. A float64 x that requires grad is answered in float64 throughout.

    The data are no parameters: `state_dict` holds a digest of them alone and loads into a denoiser over the same data
    only, `.half()` leaves them, and `.to(device)` moves them. Copies, pickles and exported programs carry the data.
    Autocast changes nothing. Queries, masks and class labels may be of any kind that data may be; the answer to an
    array of NumPy is one, and to all else a tensor.

    Raises TypeError or ValueError that names the argument, DataError for a damaged file, BackendUnavailable.
    """

    def __init__(
        self,
        data: Array | str | os.PathLike[str],
        *,
        labels: Array | None = None,
        log_weights: Array | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        tol: float = 1e-5,
        augment: Literal["hflip"] | None = None,
    ) -> None:
        super().__init__(data, Options(labels, log_weights, backend, device, tol, augment))

    # ---- what it knows about itself ----

    @property
    def backend(self) -> str:
        """The backend that serves any number of queries; with "auto", a call of few may have another."""
        return self._points.engines.name()

    @property
    def ranks(self) -> Ranks:
        """The processes that hold the data: this one alone, but for a `ShardedDenoiser`."""
        return self._points.ranks

    def prepare(self) -> Self:
        """Makes now what the first large call would make of the data, and returns itself.

        On the CPU that is for uint8 data of 2^25 numbers or more, of 1,024 or more each: 128 principal coordinates of
        every point, 256 from 2,048 numbers on, a byte each. They save a digit of the queries of every call of 17 or
        more (2 or more without AVX-512 VNNI; none with AMX) at most noise levels, and where the noise is small beside
        the data they tell most points from the nearest ones, so that calls of any size leave these unread (257 such
        calls make them, too); and trajectories of few samples, too, take lists of points from them, which changes their
        bits, to the same `tol`. CIFAR-10: 0.7 s, 14 MB. For a mapped file of 256 MiB or more they are kept beside it.
        """
        self._points.engines.serving().prepare()
        return self

    # ---- what it computes ----

    @of_any_kind
    def forward(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """r*(x; sigma), [B, *shape] in the dtype of x.

        x            [B, *shape] floating, in model space, B >= 0, on the device of the data
        sigma        a number, 0-d, [B] or [B, 1, ...], > 0
        class_labels int [B] or one-hot [B, K]: each query sees the data of its class only; None: all data
        mask         bool [B, N], in the order of the data passed in: each query sees the points that are True
        exclude      int [B]: the point that each query must not see (leave-one-out), -1 for none. As if it were not
                     in the data; with augment="hflip" its mirror image goes with it
        """
        batch = self._batch(x, sigma, class_labels, mask, exclude)
        if recorded(x, batch.sigma):
            return BatchAnswer.to(batch, self._points).shaped("mean").to(x.dtype)
        mean = torch.empty_like(batch.x)
        self._points.combine(batch, Combination(1.0, (), mean))
        return self._stored.unflatten(mean).to(x.dtype)

    @torch.no_grad()
    def combine(
        self,
        x: Tensor,
        sigma: float | Tensor,
        gain: float = 1.0,
        terms: Sequence[Term] = (),
        *,
        out: Tensor,
        class_labels: Tensor | None = None,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """out = gain r*(x; sigma) + sum_k c_k v_k for terms (c_k, v_k): a solver's update with the r that it needs.

        out, v_k  [B, *shape] in the dtype of x, which is float32 or float64; out may be x or one of the v_k
        Summed in float64 and rounded once; not recorded for autograd. On the CPU one call of the kernel, which
        allocates nothing of the size of x where the data lie in memory in the order of their shape.
        Returns out. Other arguments and errors as in `forward`; TypeError or ValueError also for an out or a v_k of
        another shape, dtype or device than x.
        """
        x = check_query_shape(x, self.shape, dtypes=PRECISE)
        batch = self._batch(x, sigma, class_labels, mask, exclude)
        for name, values in (("out", out), *((f"terms[{k}]", values) for k, (_, values) in enumerate(terms))):
            check_query_shape(values, self.shape, dtypes=(x.dtype,), name=name)
            check_device(values, name, x.device)
            if len(values) != len(x):
                raise ValueError(f"{name}: expected as many points as x, B = {len(x)}, found {len(values)}; allowed B")
        into = Combination(float(gain), terms, out)
        if recorded(x, batch.sigma):  # torch.func and modes see tensors that have no address
            into.write(BatchAnswer.to(batch, self._points).shaped("mean"))
        else:
            with self._stored.flat(into) as flat:
                self._points.combine(batch, flat)
        return out

    @of_any_kind
    def score(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """grad_x log p_sigma(x) = (r*(x; sigma) - x) / sigma^2, [B, *shape]; arguments as in `forward`."""
        asked = BatchAnswer.to(self._batch(x, sigma, class_labels, mask, exclude), self._points)
        levels = per_point(asked.batch.sigma, x)
        return ((asked.shaped("mean") - x.double()) / levels.square()).to(x.dtype)

    @of_any_kind
    def velocity(
        self,
        x: Tensor,
        t: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        path: Path = LINEAR,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """v*(x, t) = E[d x_t / dt | x_t = x] = alpha' r + sigma' (x - alpha r) / sigma, [B, *shape]: flow matching.

        r = r*(x / alpha; sigma / alpha). By default x_t = (1 - t) x_0 + t n: v* = E[n - x_0 | x_t = x] = (x - r) / t,
        and x - mean at t = 1 (`geodiff.paths.Linear("B")`: data at t = 1, E[x_1 - n | x_t = x]).

        x     [B, *shape] floating: x_t in the path's own coordinates
        t     a number, 0-d, [B] or [B, 1, ...], within 0 .. 1 but not where the data are, where v* is not defined
        path  one of `geodiff.paths`
        Off by at most tol max(|v*|, 0.01 max_i |x_i|), at every t; differentiable in x and t. Other arguments and
        errors as in `forward`; ValueError also for a t at which the path has no velocity.
        """
        x = check_query_shape(x, self.shape, dtypes=FLOATING)
        moment = Moment.of(path, shape_sigma(t, x.shape[0], device=x.device, name="t", what="time"))
        flat = self._stored.flatten(x)
        y, levels = moment.towards_data(flat)
        batch = self._batch(self._stored.unflatten(y), levels, class_labels, mask, exclude)
        if x.dtype != torch.float64:  # y is, so that x / alpha does not round
            batch = batch.within(self.tol)
        return self._stored.unflatten(velocity(flat, moment, batch, self._points)).to(x.dtype)

    @of_any_kind
    def log_prob(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """log p_sigma(x) = logsumexp_i(log pi_i - |x - x_i|^2 / 2 sigma^2) - (d/2) log 2 pi sigma^2, [B].

        Its gradient is the score. In the dtype of x, but at least float32; arguments as in `forward`.
        """
        # Its derivative in sigma takes the trace.
        asked = BatchAnswer.to(self._batch(x, sigma, class_labels, mask, exclude), self._points, with_trace=True)
        return asked.answer["log_prob"].to(precise(x))

    @of_any_kind
    def divergence(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """div_x r*(x; sigma) = tr Cov_w / sigma^2, [B]: exact, from the pass that gives r, without random probes.

        Along the probability-flow ODE, d log p_sigma(x(sigma)) / d sigma = -(d - div r) / sigma. Not differentiable.
        In the dtype of x, but at least float32; arguments as in `forward`.
        """
        asked = BatchAnswer.to(self._batch(x, sigma, class_labels, mask, exclude), self._points, with_trace=True)
        return (asked.answer["trace"] / asked.batch.sigma.detach().square()).to(precise(x))

    @of_any_kind
    def posterior(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        topk: int = 0,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Posterior:
        """The posterior over data points given x = x_i + sigma z, in summary: see `Posterior` and `forward`.

        topk: how many of the heaviest points to name, 0..N; `indices` count in the order of the `data` passed in, and
        are -1 where a query sees fewer than that.
        mean, entropy, ess, weights and trace come in the dtype of x; all but mean at least in float32.
        """
        topk = check_topk(topk, self._points.n)
        asked = BatchAnswer.to(self._batch(x, sigma, class_labels, mask, exclude), self._points, topk, with_trace=True)
        numbers: dict[str, Any] = {
            name: asked.answer[name].to(precise(x)) for name in FIELDS if name not in ("mean", "indices")
        }
        return Posterior(
            mean=asked.shaped("mean").to(x.dtype), indices=asked.answer["indices"], source=asked, **numbers
        )
