"""Local denoisers over a data set, as a module that takes the place of a denoising network."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, NoReturn, Self

import torch
from torch import Tensor

from geodiff.base.arguments import check_finite, check_integer, check_levels
from geodiff.base.array_like import Array
from geodiff.base.dtypes import STORED
from geodiff.denoiser import from_denoised
from geodiff.denoiser.array_queries import of_any_kind
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.operators import followed, transformed
from geodiff.denoiser.over_data import Options, OverData, precise
from geodiff.local.engine import LocalAnswer, LocalQuery, Work, axes, layout_of
from geodiff.local.engines import LocalEngines
from geodiff.local.gradient import Followed
from geodiff.local.kind import MaskSource, Patch, Settings, Source
from geodiff.local.plain import seen_by
from geodiff.local.registry import check_taken, find_kind
from geodiff.paths import LINEAR, Path
from geodiff.reference.forms import Form
from geodiff.reference.local import Posteriors


class LocalDenoiser(OverData):
    """r[c, p] = sum_i w_i(p) x_i[c, p], w_i(p) = softmax_i(log pi_i - q_i(p) / 2 sigma^2).

    With q_i(p) = |x - x_i|^2 over the window around p that is LS, `kind="ls"`; the others differ in which posteriors
    there are and how they make an image:

    ls, ls_circular        a posterior a pixel, from the k x k window around it, clipped at the border or periodic
    els_torus, _valid, _broken  the same over (image, place in it): periodic; periodic x, windows that fit into the
                           image; windows and places by how the border clips them    (Kamb and Ganguli, 2412.20292)
    pspc_square            a posterior for every k x k crop that fits; a pixel is the mean of the crops over it
    pspc_flex              the same over `masks`                                     (Niedoba et al., 2411.19339)
    pca                    a posterior a number, over the inputs that a Wiener filter says count for it
                                                                                     (Lukoianov et al., 2509.09672)

    data         [N, C, H, W] as `OptimalDenoiser` takes them, or float64, which is answered in float64 throughout
    patch        k, odd (for pspc_square: any), or a callable sigma -> k, such as those of `geodiff.local.schedules`;
                 for ls, els and pspc_square; None: 3
    masks        for pspc_flex: bool [A, H, W], or a callable sigma -> masks (`geodiff.local.flex_masks`)
    threshold, temperature   for pca: inputs count from `threshold` of the largest; logits are divided by `temperature`;
                 None: 0.05 and 1
    pool_average   for pca: not the posterior over all images, but the plain mean of those over each so many of them, in
                   the order that they are stored in, as code that was published computes it (there 512)
    labels, log_weights, device, augment   as in `OptimalDenoiser`; a mirror image is one more image, windows and all
    backend      "auto", or a name from `geodiff.local.engines.available()`
    tol          relative error allowed at every pixel: |r - r64| <= tol max(|r64|, 0.01 max_i |x_i|), r64 in float64

    Attributes as of `OptimalDenoiser`. r is the denoiser of no density: `log_prob` is refused, `divergence` is exact.
    Differentiable in x and sigma, once and in reverse mode, by three passes in float64.
    Raises TypeError or ValueError that names the argument, such as one of another kind, DataError for a damaged file,
    BackendUnavailable.
    """

    _dtypes = (*STORED, torch.float64)
    #: of the last call of `forward`, where its engine counts it (ELS does)
    work: Work | None = None

    def __init__(
        self,
        data: Array | str | os.PathLike[str],
        *,
        kind: str = "ls",
        patch: Patch | None = None,
        masks: MaskSource | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        pool_average: int | None = None,
        labels: Array | None = None,
        log_weights: Array | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        tol: float = 1e-5,
        augment: Literal["hflip"] | None = None,
    ) -> None:
        make = find_kind(kind)
        chosen = {"patch": patch, "masks": masks, "threshold": threshold, "temperature": temperature}
        given = check_taken(kind, {**chosen, "pool_average": pool_average})
        if pool_average is not None:
            check_integer(given.pop("pool_average"), "pool_average", 1)
        super().__init__(data, Options(labels, log_weights, backend, device, tol, augment))
        self.kind, self._asked, self._pool = kind, backend, pool_average
        self._kind = make(axes(self.shape), Settings(**given))
        self._open()

    @staticmethod
    def _backend_of_points(backend: str, dtype: torch.dtype) -> str:
        return "reference" if dtype == torch.float64 or backend == "reference" else "auto"

    def _open(self) -> None:
        self._engines = LocalEngines(self._asked, self._stored.rows)
        self._changes = self._points.engines.changes

    @property
    def backend(self) -> str:
        """The backend asked for, or the first of those that may serve a call."""
        return self._engines.names[0]

    # ---- what it computes ----

    @of_any_kind
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """r(x; sigma), [B, C, H, W] in the dtype of x; arguments as in `OptimalDenoiser.forward`."""
        batch = self._batch(x, sigma, class_labels, mask, exclude)
        if followed(x, batch.sigma):
            return self._joined(batch).to(x.dtype)
        mean, self.work = torch.empty_like(batch.x), None
        for chosen, asked in self._queries(batch):
            answer = self._pooled(asked)
            mean[... if chosen is None else chosen] = answer.mean.to(mean)
            if answer.work is not None:
                before = self.work or Work(0, 0)
                self.work = Work(before.pairs + answer.work.pairs, before.weighed + answer.work.weighed)
        return self._stored.unflatten(mean).to(x.dtype)

    @of_any_kind
    @torch.no_grad()
    def posteriors(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Posteriors:
        """Mean, variance, ess and nearest image of every posterior: see `geodiff.reference.local.Posteriors`.

        ess and nearest are [B, H, W] for LS and ELS. `nearest` counts in the order of the data passed in, mirror images
        N further on. ValueError for B = 0, and for crops of several sizes in one call, whose numbers differ.
        """
        self._refuse_pools("posteriors")
        batch = self._batch(x, sigma, class_labels, mask, exclude)
        size = len(batch.x)
        found: dict[str, Tensor] = {}
        for chosen, asked in self._queries(batch, details=True):
            answer = self._engines.answer(asked)
            for name, values in answer._asdict().items():
                if name == "work":
                    continue
                place = found.setdefault(name, values.new_empty(size, *values.shape[1:]))
                if place.shape[1:] != values.shape[1:]:
                    raise ValueError(
                        "sigma: expected levels with crops of one size, found several; allowed one call each"
                    )
                place[... if chosen is None else chosen] = values
        if not found:
            raise ValueError("x: expected a query, found B = 0; allowed B >= 1")
        mean, variance = (self._stored.unflatten(found[name]) for name in ("mean", "variance"))
        log_mass, ess, variance = (one.to(precise(x)) for one in (found["log_mass"], found["ess"], variance))
        return Posteriors(mean.to(x.dtype), log_mass, variance, ess, self._named(found["nearest"]))

    @of_any_kind
    @torch.no_grad()
    def divergence(
        self,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """div_x r(x; sigma) [B]: exact, from variances of posteriors, without random probes. Not differentiable.

        In the dtype of x, but at least float32; arguments as in `forward`.
        """
        batch = self._batch(x, sigma, class_labels, mask, exclude)
        out = torch.empty_like(batch.sigma)
        for chosen, asked in self._queries(batch, details=True):
            variance = self._pooled(asked).variance
            assert variance is not None, "details have it"
            found = asked.form.divergence(asked.layout.images(variance.double()), asked.query.sigma)
            out[... if chosen is None else chosen] = found
        return out.to(precise(x))

    @of_any_kind
    def velocity(self, x: Tensor, t: float | Tensor, *, path: Path = LINEAR, **conditions: Any) -> Tensor:
        """v = alpha' r + sigma' (x - alpha r) / sigma, r = r(x / alpha; sigma / alpha), [B, C, H, W] in the dtype of x.

        x [B, C, H, W] = x_t; t a number, 0-d, [B] or [B, 1, ...], not where the data are; `path` of `geodiff.paths`.
        """
        return from_denoised.velocity(self, x, t, path, conditions)

    @of_any_kind
    def score(self, x: Tensor, sigma: float | Tensor, **conditions: Any) -> Tensor:
        """(r(x; sigma) - x) / sigma^2, [B, C, H, W] in the dtype of x: what samplers use, no gradient of anything."""
        return from_denoised.score(self, x, sigma, conditions)

    def log_prob(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: (r - x) / sigma^2 of a local denoiser is not the gradient of a log-density."""
        raise TypeError(
            f"log_prob: expected a denoiser whose field is a gradient, found kind {self.kind!r}, whose Jacobian is not "
            f"symmetric: it belongs to no density; allowed OptimalDenoiser.log_prob, or the exact `divergence` of this"
        )

    def form(self, sigma: float) -> Form:
        """Which posteriors there are at that level: see `geodiff.reference.forms`."""
        return self._kind.form(self._kind.key(sigma), self._source())

    def places(self, indices: Tensor) -> Tensor:
        """Where the images passed in at `indices` lie in `data`, which is sorted by class where there are labels."""
        return self._stored.places(indices)

    # ---- answers ----

    def _queries(self, batch: Batch, *, details: bool = False) -> Iterator[tuple[Tensor | None, LocalQuery]]:
        """The batch as queries of engines, one for each form and range of rows: which (None: all), and what."""
        check_finite(batch.x, "x")
        check_levels(batch.sigma)
        self._points.engines.check()
        if self._points.engines.changes != self._changes:
            self._open()
        source = self._source()
        layout = layout_of(source.images)
        for part in self._points.conditioning.parts(batch):
            levels = part.query.sigma.tolist()
            keys = [self._kind.key(level) for level in levels]
            for key in dict.fromkeys(keys):
                query, chosen = part.query, part.chosen
                if keys.count(key) < len(keys):
                    which = torch.tensor([b for b, other in enumerate(keys) if other == key], device=query.x.device)
                    query, chosen = query.picked(which), which if chosen is None else chosen[which]
                yield chosen, LocalQuery(query, self._kind.form(key, source), layout, source.mirrored, details)

    def _pooled(self, asked: LocalQuery) -> LocalAnswer:
        """The engine's answer; with `pool_average` the plain means of those over each pool."""
        if self._pool is None:
            return self._engines.answer(asked)
        query = asked.query
        if query.log_prior is not None or query.exclude is not None:
            raise ValueError(
                "pool_average: expected images that weigh alike, found log_weights, a mask or exclude; allowed None"
            )
        pools = [query.rows[start : start + self._pool] for start in range(0, len(query.rows), self._pool)]
        mean: Tensor | float = 0.0
        variance: Tensor | float = 0.0
        for rows in pools:
            answer = self._engines.answer(replace(asked, query=replace(query, rows=rows)))
            mean = mean + answer.mean.double() / len(pools)
            if answer.variance is not None:
                variance = variance + answer.variance.double() / len(pools)
        assert isinstance(mean, Tensor), "there are rows"
        return LocalAnswer(mean, variance if isinstance(variance, Tensor) else None)

    def _refuse_pools(self, what: str) -> None:
        if self._pool is not None:
            raise ValueError(f"pool_average: expected None for {what}, found {self._pool}; allowed forward, divergence")

    def _source(self) -> Source:
        stored = self._stored
        return Source(stored.points(), self.augment is not None, (stored.rows.device, self._changes))

    def _joined(self, batch: Batch) -> Tensor:
        """r of a batch that autograd follows, [B, C, H, W] float64."""
        self._refuse_pools("a gradient")
        if transformed():
            raise TypeError(
                "x: expected tensors outside of torch.func, whose transforms local denoisers do not know, found such; "
                "allowed torch.autograd, once and in reverse mode"
            )
        out = batch.x.double()
        for chosen, asked in self._queries(batch):
            x, seen = asked.layout.images(asked.query.x.double()), seen_by(asked, self._stored.rows)
            r = Followed.apply(x, asked.query.sigma, seen, asked.form)  # type: ignore[no-untyped-call]
            found = asked.layout.rows(r)
            out = found if chosen is None else out.index_copy(0, chosen, found)
        return self._stored.unflatten(out)

    def _named(self, rows: Tensor) -> Tensor:
        """Numbers of rows to positions in the data as passed in; mirror images stay N further on."""
        n = self._points.n
        return self._stored.original(rows % n) + rows // n * n

    # ---- moving and copying ----

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._open()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_engines"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()

    def extra_repr(self) -> str:
        """One line for print(denoiser)."""
        return f"kind={self.kind!r}, {super().extra_repr()}"
