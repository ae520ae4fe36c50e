"""smalldiffusion: the optimal denoiser, or any other of this package, in the place of its models and IdealDenoiser.

Nothing is imported from smalldiffusion: a model there is what answers to `predict_eps_cfg` and `rand_input`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geodiff.adapters.flow import FlowModel
from geodiff.adapters.parametrization import x0_to_eps
from geodiff.base.denoiser_type import Denoiser


class SmallDiffusionModel(nn.Module):
    """eps(x; sigma) = (x - r(x; sigma)) / sigma, called as smalldiffusion calls its models.

    denoiser    r(x [B, *shape], sigma 0-d or [B, 1, ...], class_labels) -> [B, *shape]
    input_dims  the shape of one point, for `rand_input`; default the denoiser's `shape`
    flow        answer v = n - x_0 at x_t = (1 - t) x_0 + t n instead, for ScheduleFlow, whose levels are times t

    Its `samples` and `training_loop` take it as a model; `cond` are class labels.
    """

    def __init__(self, denoiser: Denoiser, input_dims: tuple[int, ...] | None = None, *, flow: bool = False) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.input_dims = tuple(getattr(denoiser, "shape", ())) if input_dims is None else tuple(input_dims)
        if not self.input_dims:
            raise ValueError(
                "input_dims: expected the shape of one point, found none and a denoiser without `shape`; "
                "allowed input_dims=(C, H, W)"
            )
        self._flow = FlowModel(denoiser, "A") if flow else None

    def rand_input(self, batchsize: int) -> Tensor:
        """z ~ N(0, I), [B, *shape]."""
        return torch.randn(batchsize, *self.input_dims)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """The prediction [B, *shape] in the dtype of x: eps, or v."""
        conditions = {} if cond is None else {"class_labels": cond}
        if self._flow is not None:
            return self._flow(x, sigma, **conditions)
        return x0_to_eps(x, self.denoiser(x, sigma, **conditions), sigma)

    def predict_eps(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """`forward`, by the name that samplers use."""
        return self(x, sigma, cond=cond)

    def predict_eps_cfg(self, x: Tensor, sigma: Tensor, cond: Tensor | None, cfg_scale: float) -> Tensor:
        """eps_c + cfg_scale (eps_c - eps): guidance away from the prediction over all data."""
        found = self(x, sigma, cond=cond)
        return found if cond is None or cfg_scale == 0 else found + cfg_scale * (found - self(x, sigma))

    def get_loss(
        self,
        x0: Tensor,
        sigma: Tensor,
        eps: Tensor,
        cond: Tensor | None = None,
        loss: Callable[[], Callable[[Tensor, Tensor], Tensor]] = nn.MSELoss,
    ) -> Tensor:
        """The loss that a model in its place would be trained with: the least there is, for the optimal denoiser."""
        if self._flow is not None:
            return loss()(eps - x0, self((1 - sigma) * x0 + sigma * eps, sigma, cond=cond))
        return loss()(eps, self(x0 + sigma * eps, sigma, cond=cond))
