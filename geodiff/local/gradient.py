"""The gradient of r in x and sigma, in three passes over the data that keep none of them.

With s_i(a) = sum_p <v, c_a x_i>(p), the cotangent of a logit is w_i(a) (s_i(a) - sum_j w_j(a) s_j(a)), and the logits
of each tile have a graph of their own.

Those of a posterior sum to 0, and what they are multiplied by grows with |x - x_i|^2 / sigma^3: what rounding leaves of
the sum must be small beside them. So weights are taken from the largest logit and divided by their sum, since those of
exp(logit - log_mass) are off by the rounding of log_mass. And s_i(a) is counted from that of the heaviest candidate,
with x_i - r for x_i, which a posterior does not notice: copies differ by 0, and near ones lose no digits.
"""

from typing import Any

import torch
from torch import Tensor

from geodiff.reference import local
from geodiff.reference.forms import Form
from geodiff.reference.local import Piece, Pieces, Seen, weighted_sum


class Followed(torch.autograd.Function):
    """r in float64, by the formulas; differentiable once, in reverse mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, seen: Seen, form: Form) -> Tensor:
        """x [B, C, H, W] float64, sigma [B] float64."""
        found = local.posteriors(x, seen, sigma, form)
        ctx.save_for_backward(x, sigma, found.mean)
        ctx.seen, ctx.form = seen, form
        return found.mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, sigma, mean = ctx.saved_tensors
        by_x, by_sigma = torch.zeros_like(x), torch.zeros_like(sigma)
        prior = ctx.seen.log_prior(x).expand(len(x), -1)
        for b in range(len(x)):
            one = slice(b, b + 1)
            asked = _One(ctx.seen, ctx.form, prior[one], mean[one], v[one])
            by_x[one], by_sigma[one] = asked.gradient(x[one], sigma[one])
        return by_x, by_sigma, None, None


class _One:
    """One query, its r, and the cotangent of it."""

    def __init__(self, seen: Seen, form: Form, prior: Tensor, mean: Tensor, v: Tensor) -> None:
        self.seen, self.form, self.prior, self.mean, self.v = seen, form, prior, mean, v

    def gradient(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        best, mass, first, expected = self._sums(Pieces(x, self.seen, sigma, self.prior, self.form))
        by_x, by_sigma = torch.zeros_like(x), torch.zeros_like(sigma)
        with torch.enable_grad():
            x, sigma = x.detach().requires_grad_(), sigma.detach().requires_grad_()
            for piece in Pieces(x, self.seen, sigma, self.prior, self.form):
                weights = (piece.logits.detach() - best[:, None]).exp() / mass[:, None]
                cotangents = weights * (self._gains(piece) - first[:, None] - expected[:, None])
                of_x, of_sigma = torch.autograd.grad(piece.logits, (x, sigma), cotangents)
                by_x += of_x
                by_sigma += of_sigma
        return by_x, by_sigma

    def _sums(self, pieces: Pieces) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each posterior the largest logit, sum_i exp(logit - largest), s of the first such candidate, and
        sum_j w_j (s_j - that): each [1, *A]."""
        best, (mass, first, expected) = self.mean.new_tensor(-torch.inf), self.mean.new_zeros(3)
        for piece in pieces:
            gains = self._gains(piece)
            top, place = piece.logits.max(1)
            new = torch.maximum(best, top)
            safe = new.masked_fill(new.isneginf(), 0)  # no candidate so far: nothing to be relative to
            heaviest = torch.where(top > best, gains.gather(1, place[:, None])[:, 0], first)
            weights, scale = (piece.logits - safe[:, None]).exp(), (best - safe).exp()
            before = (expected + mass * (first - heaviest)) * scale
            expected = before + (weights * (gains - heaviest[:, None])).sum(1)
            mass = mass * scale + weights.sum(1)
            best, first = new, heaviest
        return best, mass, first, expected / mass

    def _gains(self, piece: Piece) -> Tensor:
        """s_i(a) with x_i - r for x_i, [1, n, *A]: the derivative of <v, sum_i (x_i - r) sum_a c_a w_i(a)> in w."""
        with torch.enable_grad():
            weights = torch.zeros_like(piece.logits, requires_grad=True)
            along = (weighted_sum(self.form, weights, piece.values - self.mean) * self.v).sum()
            return torch.autograd.grad(along, weights)[0]
