"""A learned velocity of flow matching, called as the optimal one is, and the denoiser that it amounts to."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_query, check_sigma, shape_sigma
from geodiff.base.dtypes import FLOATING
from geodiff.learned.image_model import ImageModel, check_no_labels


class LearnedFlow(ImageModel):
    """v(x_t, t) = F(x_t; t) ~ E[n - x_0 | x_t], x_t = (1 - t) x_0 + t n (Liu et al., 2209.03003): noise at t = 1.

    Called with sigma it is the denoiser r(x; sigma) = x_t - t v(x_t, t), x_t = (1 - t) x, t = sigma / (1 + sigma),
    and so goes where denoisers go.

    Arguments, attributes and errors as of `ImageModel`: LearnedFlow(shape, config).
    """

    def velocity(self, x: Tensor, t: float | Tensor) -> Tensor:
        """v(x, t), [B, C, H, W] in the dtype of x = x_t; t a number, 0-d, [B] or [B, 1, ...] within 0 .. 1."""
        x = check_query(x, self.shape, dtypes=FLOATING)
        times = shape_sigma(t, len(x), device=x.device, name="t", what="time")
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError("t: expected times, found others; allowed 0 <= t <= 1")
        if len(x) == 0:  # convolutions refuse it
            return x.clone()
        weights = next(self.parameters()).dtype
        return self.network(x.to(weights), times.to(weights)).to(x.dtype)

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """r(x; sigma), [B, C, H, W] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...], > 0.

        class_labels must be None: the network is unconditional.
        """
        check_no_labels(class_labels)
        state, times = self._on_the_path(x, sigma)
        return (state - times.reshape(-1, 1, 1, 1).to(state.dtype) * self.velocity(state, times)).to(x.dtype)

    def features(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The network's inner features of x at noise level sigma, averaged over the picture: [B, 2 width]."""
        state, times = self._on_the_path(x, sigma)
        weights = next(self.parameters()).dtype
        return self.network.features(state.to(weights), times.to(weights))

    def _on_the_path(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """x_t = (1 - t) x, at least float32, and t [B] float64 for x at noise level sigma."""
        x = check_query(x, self.shape, dtypes=FLOATING)
        levels = check_sigma(sigma, len(x), device=x.device)
        states = x.to(torch.promote_types(x.dtype, torch.float32))
        return states / (1 + levels).to(states.dtype).reshape(-1, 1, 1, 1), levels / (1 + levels)
