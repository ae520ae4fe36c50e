"""Local denoisers in pure PyTorch, by the one scheme that they share: the oracle of every local kernel.

With e_i(p) = sum_c (x[c, p] - x_i[c, p])^2, a denoiser has posteriors a whose distances q_i(a) are linear in e_i,
weights w_i(a) = softmax_i(log pi_i - q_i(a) / 2 sigma^2), and r is a sum of w_i(a) x_i over posteriors: a `Form` says
which (`geodiff.reference.forms`). Data are taken in tiles of squared differences: nothing of B N d numbers is made.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.arguments import check_data, check_exclude, check_finite, check_log_weights, check_query, check_sigma
from geodiff.reference.forms import Form
from geodiff.reference.formula import model_space

# The most numbers in a tile of differences, queries x rows x d, of which a few copies live at a time.
_TILE_CPU = 2**18
_TILE_ACCELERATOR = 2**24
# The most logits that are kept from pass to pass; beyond, each pass computes them again.
_KEPT = 2**21


class Seen(NamedTuple):
    """What queries see.

    data        [N, C, H, W]: uint8 u means u/127.5 - 1, float16 .. float64 mean themselves
    log_weights [N] or [B, N]: pi = softmax of them, -inf leaves an image out; None: pi_i = 1/N
    exclude     int [B]: the image that each query does not see, -1 for none; its mirror image goes with it
    mirrored    whether the mirror image of each is one more image, with patches of its own: N + i
    """

    data: Tensor
    log_weights: Tensor | None = None
    exclude: Tensor | None = None
    mirrored: bool = False

    def log_prior(self, x: Tensor) -> Tensor:
        """log pi [1 or B, N] or [1 or B, 2 N], normalised but for what `exclude` leaves out, in the dtype of x."""
        n = len(self.data)
        given = self.log_weights
        if given is None:
            prior = x.new_zeros(1, n).log_softmax(1)
        elif given.ndim == 1:
            prior = check_log_weights(given, n, device=x.device).to(x.dtype)[None]
        else:
            prior = given.to(x).log_softmax(1)
        if self.exclude is not None:
            exclude = check_exclude(self.exclude, len(x), n).to(x.device)
            prior = prior.masked_fill(exclude[:, None] == torch.arange(n, device=x.device), -torch.inf)
        if bool(prior.isneginf().all(1).any()):
            raise ValueError("exclude: expected an image of weight above 0 that is left, found none for one query")
        prior = prior.log_softmax(1)
        return torch.cat([prior, prior], 1) - prior.new_tensor(2).log() if self.mirrored else prior


class Posteriors(NamedTuple):
    """The posteriors a of each query, in summary; A is [H, W], a posterior a pixel, if the form says nothing else.

    mean      [B, C, H, W]: r
    log_mass  [B, *A]: log sum_i pi_i exp(-q_i(a) / 2 sigma^2)
    variance  [B, C, H, W]: the variance of x_i[c, p], averaged as r is; sum / sigma^2 = div r. None unless asked for
    ess       [B, *A]: 1 / sum_i w_i(a)^2, the images that count. None unless asked for
    nearest   int64 [B, *A]: the image of the largest weight, the first of equals. None unless asked for
    """

    mean: Tensor
    log_mass: Tensor
    variance: Tensor | None = None
    ess: Tensor | None = None
    nearest: Tensor | None = None


def posteriors(
    x: Tensor, data: Tensor | Seen, sigma: float | Tensor, form: Form, *, details: bool = False
) -> Posteriors:
    """w_i(a) = softmax_i(log pi_i - q_i(a) / 2 sigma^2) and r = sum_i x_i sum_a c_a w_i(a), all in the dtype of x.

    x       [B, C, H, W] float32 or float64, in model space
    data    [N, C, H, W] on the device of x, or `Seen`
    sigma   a number, 0-d, [B] or [B, 1, ...], > 0
    form    which posteriors: `geodiff.reference.forms`
    details whether variance, ess and nearest are wanted
    Kamb and Ganguli, 2412.20292; Niedoba et al., 2411.19339; Lukoianov et al., 2509.09672.
    Raises TypeError or ValueError that names the argument, also where x is so far from data that distances overflow.
    """
    seen = data if isinstance(data, Seen) else Seen(data)
    images = check_data(seen.data)
    if images.ndim != 4:
        raise ValueError(f"data: expected images [N, C, H, W], found shape {list(images.shape)}; allowed four axes")
    x = check_query(x, images.shape[1:])
    if images.device != x.device:
        raise ValueError(f"data: expected on x's device {x.device}, found on {images.device}; allowed one for both")
    levels = check_sigma(sigma, len(x), device=x.device)
    prior = seen.log_prior(x).expand(len(x), -1)
    group = max(1, _tile(x) // (images[0].numel() * min(len(images), _rows(x))))
    with torch.autocast(x.device.type, enabled=False):
        parts = []
        for start in range(0, max(1, len(x)), group):
            part = slice(start, start + group)
            asked = Pieces(x[part], seen, levels[part], prior[part], form)
            parts.append(_answer(asked, details=details))
    return Posteriors(*(None if rows[0] is None else torch.cat(rows) for rows in zip(*parts, strict=True)))  # type: ignore[arg-type]


class Piece(NamedTuple):
    """Some candidates: images from number `first` on, values [n, C, H, W] at each pixel, logits [b, n, *A]."""

    first: int
    values: Tensor
    logits: Tensor


class Pieces:
    """All candidates of some queries, piece by piece, again for each pass: kept where they are few."""

    def __init__(self, x: Tensor, seen: Seen, sigma: Tensor, prior: Tensor, form: Form) -> None:
        self.x, self.form = x, form
        self._seen, self._sigma, self._prior = seen, sigma, prior
        self._kept: list[Piece] | None = None
        shifts = len(form.shifts(*x.shape[-2:]))
        self._keep = prior.shape[1] * shifts * x.numel() <= _KEPT and not x.requires_grad

    def __iter__(self) -> Iterator[Piece]:
        if self._kept is not None:
            return iter(self._kept)
        if self._keep:
            self._kept = list(self._made())
            return iter(self._kept)
        return self._made()

    def _made(self) -> Iterator[Piece]:
        for first, points in self._tiles():
            prior = self._prior[:, first : first + len(points)]
            for shift in self.form.shifts(*points.shape[-2:]):
                values = self.form.moved(points, shift)
                far = self.form.distances(self.x, values, shift)
                trailing = [1] * (far.ndim - 2)
                scale = (0.5 / self._sigma.square()).to(far.dtype)  # here, so that each piece has a graph of its own
                logits = prior.reshape(*prior.shape, *trailing) - far * scale.reshape(-1, 1, *trailing)
                admissible = self.form.admissible(values.shape[-2:], shift, logits)
                if admissible is not None:
                    logits = logits.masked_fill(~admissible, -torch.inf)
                yield Piece(first, values, logits)

    def _tiles(self) -> Iterator[tuple[int, Tensor]]:
        data = self._seen.data
        for mirrored in range(2 if self._seen.mirrored else 1):
            for start in range(0, len(data), _rows(self.x)):
                points = model_space(data[start : start + _rows(self.x)], self.x.dtype)
                check_finite(points, "data", first_row=start)
                yield start + mirrored * len(data), points.flip(-1) if mirrored else points


def _tile(x: Tensor) -> int:
    return _TILE_CPU if x.device.type == "cpu" else _TILE_ACCELERATOR


def _rows(x: Tensor) -> int:
    return max(1, _tile(x) // 4 // x.shape[1:].numel())


def _answer(pieces: Pieces, *, details: bool) -> Posteriors:
    best, mass, nearest = _masses(pieces)
    mean = torch.zeros_like(pieces.x)
    squares = torch.zeros_like(mass)
    for piece in pieces:
        weights = _weights(piece, best, mass)
        squares = squares + weights.square().sum(1)
        mean = mean + weighted_sum(pieces.form, weights, piece.values)
    log_mass = best + mass.log()
    if not details:
        return Posteriors(mean, log_mass)
    return Posteriors(mean, log_mass, _variance(pieces, best, mass, mean), 1 / squares, nearest)


def _masses(pieces: Pieces) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit of each posterior, sum_i exp(logit - largest), and whose it is: each [b, *A]."""
    best, mass = pieces.x.new_tensor(-torch.inf), pieces.x.new_zeros(())
    nearest = pieces.x.new_zeros((), dtype=torch.int64)
    for first, _, logits in pieces:
        top, place = logits.max(1)
        new = torch.maximum(best, top)
        safe = new.masked_fill(new.isneginf(), 0)  # no candidate so far: nothing to be relative to
        nearest = torch.where(top > best, place + first, nearest.to(place.device))
        mass = mass * (best - safe).exp() + (logits - safe[:, None]).exp().sum(1)
        best = new
    if not bool(torch.isfinite(best.detach()).all()):
        raise ValueError(
            f"x: expected within reach of the data, found squared distances over sigma^2 that overflow "
            f"{pieces.x.dtype}; allowed smaller values of x and data, a larger sigma, or float64"
        )
    return best, mass, nearest


def _weights(piece: Piece, best: Tensor, mass: Tensor) -> Tensor:
    # From the largest logit, not from log_mass: of logits of 1e9 that would leave the weights few digits.
    return (piece.logits - best[:, None]).exp() / mass[:, None]


def weighted_sum(form: Form, weights: Tensor, values: Tensor) -> Tensor:
    """sum_i x_i sum_a c_a w_i(a), [b, C, H, W], for weights [b, n, *A] and values [n, C, H, W] or [b, n, C, H, W]."""
    return (form.spread(weights) * values).sum(1)


def _variance(pieces: Pieces, best: Tensor, mass: Tensor, mean: Tensor) -> Tensor:
    """sum_a c_a(p) Var_{w(a)}(x_i[c, p]): second moments about r, less what the posteriors' own means differ from r."""
    form, total, apart = pieces.form, torch.zeros_like(mean), None
    for piece in pieces:
        weights = _weights(piece, best, mass)
        off = piece.values - mean[:, None]  # [b, n, C, H, W]
        total = total + weighted_sum(form, weights, off.square())
        if form.overlap:
            part = torch.einsum("bna,bncp->bacp", weights.flatten(2), off.flatten(3))
            apart = part if apart is None else apart + part
    if apart is None:
        return total
    return (total - form.between(apart, mean.shape[-2:])).clamp_min(0)
