"""The gradient of r in x and sigma, in three passes over the data that keep none of them.

With s_i(a) = sum_p <v, c_a x_i>(p), the cotangent of a logit is w_i(a) (s_i(a) - sum_j w_j(a) s_j(a)). For weights
exp(logit - log_mass) with a constant log_mass, that is the derivative of

    phi = <v, sum_i x_i sum_a c_a w_i(a)> - sum_a s(a) sum_i w_i(a),    s(a) = sum_j w_j(a) s_j(a) constant,

which is summed over tiles, each with a graph of its own.
"""

from typing import Any

import torch
from torch import Tensor

from geodiff.reference import local
from geodiff.reference.forms import Form
from geodiff.reference.local import Pieces, Seen, weighted_sum


class Followed(torch.autograd.Function):
    """r in float64, by the formulas; differentiable once, in reverse mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, seen: Seen, form: Form) -> Tensor:
        """x [B, C, H, W] float64, sigma [B] float64."""
        found = local.posteriors(x, seen, sigma, form)
        ctx.save_for_backward(x, sigma, found.log_mass)
        ctx.seen, ctx.form = seen, form
        return found.mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, sigma, log_mass = ctx.saved_tensors
        by_x, by_sigma = torch.zeros_like(x), torch.zeros_like(sigma)
        prior = ctx.seen.log_prior(x).expand(len(x), -1)
        for b in range(len(x)):
            one = slice(b, b + 1)
            asked = _One(ctx.seen, ctx.form, prior[one], log_mass[one], v[one])
            by_x[one], by_sigma[one] = asked.gradient(x[one], sigma[one])
        return by_x, by_sigma, None, None


class _One:
    """One query, its posteriors' mass, and the cotangent of its r."""

    def __init__(self, seen: Seen, form: Form, prior: Tensor, log_mass: Tensor, v: Tensor) -> None:
        self.seen, self.form, self.prior, self.log_mass, self.v = seen, form, prior, log_mass, v

    def gradient(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        expected = torch.zeros_like(self.log_mass)
        for piece in Pieces(x, self.seen, sigma, self.prior, self.form):
            weights = (piece.logits - self.log_mass[:, None]).exp()
            with torch.enable_grad():
                asked = weights.requires_grad_()
                (gains,) = torch.autograd.grad((weighted_sum(self.form, asked, piece.values) * self.v).sum(), asked)
            expected += (weights.detach() * gains).sum(1)
        by_x, by_sigma = torch.zeros_like(x), torch.zeros_like(sigma)
        with torch.enable_grad():
            x, sigma = x.detach().requires_grad_(), sigma.detach().requires_grad_()
            for piece in Pieces(x, self.seen, sigma, self.prior, self.form):
                weights = (piece.logits - self.log_mass[:, None]).exp()
                phi = (weighted_sum(self.form, weights, piece.values) * self.v).sum() - (
                    expected * weights.sum(1)
                ).sum()
                of_x, of_sigma = torch.autograd.grad(phi, (x, sigma))
                by_x += of_x
                by_sigma += of_sigma
        return by_x, by_sigma
