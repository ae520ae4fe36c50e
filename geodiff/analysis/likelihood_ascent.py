"""Whether a denoiser climbs: the likelihood at its answer and after its Euler step, against that where it started."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.denoiser_type import Denoiser
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.reference.contract import log_prob_allowed

__all__ = ["LikelihoodAscent", "likelihood_ascent"]


@dataclass(frozen=True, eq=False)
class LikelihoodAscent:
    """What `likelihood_ascent` measures, each [B].

    close       |r_theta - r*| <= |r* - x|: the condition
    at_start    log p_sigma(x)
    at_denoised log p_sigma(r_theta(x; sigma))
    at_step     log p_sigma(x'), x' the Euler step
    """

    close: Tensor
    at_start: Tensor
    at_denoised: Tensor
    at_step: Tensor

    @property
    def holds(self) -> Tensor:
        """[B]: neither falls where the condition is met; the tolerance is what `log_prob` promises."""
        slack = 2 * log_prob_allowed(self.at_start)
        climbs = (self.at_denoised >= self.at_start - slack) & (self.at_step >= self.at_start - slack)
        return climbs | ~self.close


@torch.no_grad()
def likelihood_ascent(
    optimal: OptimalDenoiser, learned: Denoiser, x: Tensor, sigma: float, sigma_next: float
) -> LikelihoodAscent:
    """If |r_theta - r*| <= |r* - x|, p_sigma(r_theta) >= p_sigma(x), and p_sigma(x') >= p_sigma(x) at the Euler step.

    x' = (sigma'/sigma) x + (1 - sigma'/sigma) r_theta(x; sigma). x [B, *shape]; log-likelihoods are those of the data
    smoothed with bandwidth sigma, all at the level sigma that the step starts from, in nats (arXiv 2305.19947, the
    proposition on likelihood ascent). With r* for r_theta the condition always holds: this is mean shift.
    Why: by Jensen's inequality log p(y) - log p(x) >= (|x - r*|^2 - |y - r*|^2) / 2 sigma^2.
    """
    posterior = optimal.posterior(x, sigma)
    answer = check_answer(learned(x, x.new_tensor(sigma)), x, "learned", f"sigma = {sigma:g}")
    ratio = sigma_next / sigma
    error = (answer - posterior.mean).flatten(1).norm(dim=1)
    return LikelihoodAscent(
        close=error <= (posterior.mean - x).flatten(1).norm(dim=1),
        at_start=posterior.log_prob,
        at_denoised=optimal.log_prob(answer, sigma),
        at_step=optimal.log_prob(ratio * x + (1 - ratio) * answer, sigma),
    )
