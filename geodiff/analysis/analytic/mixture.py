"""A mixture of Gaussians, one for each class: between the one Gaussian and the data set itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.analysis.analytic.gaussian import GaussianDenoiser
from geodiff.base.per_point import per_point
from geodiff.data.labels import check_labels


class GaussianMixtureDenoiser:
    """r(x; sigma) = sum_c w_c r_c(x; sigma), w = softmax_c(log pi_c + log N(x; mu_c, Cov_c + sigma^2)).

    components  the Gaussians, all of one shape; log_weights [C] log pi_c, normalised here

    Optimal for the mixture sum_c pi_c N(mu_c, Cov_c); with one component for each data point and no variance it is the
    optimal denoiser of the data (Chen et al., 2305.19947; mixtures in Wang and Vastola, 2311.10892).
    Raises ValueError for no components, other shapes, or weights that do not fit.
    """

    def __init__(self, components: Sequence[GaussianDenoiser], log_weights: Tensor) -> None:
        if not components or any(component.shape != components[0].shape for component in components):
            raise ValueError(
                f"components: expected Gaussians of one shape, found {[component.shape for component in components]}; "
                f"allowed one or more"
            )
        if log_weights.shape != (len(components),) or not bool(log_weights.isfinite().all()):
            raise ValueError(
                f"log_weights: expected {len(components)} finite numbers, found {log_weights.tolist()!r:.60}; "
                f"allowed one for each component"
            )
        self.components = list(components)
        self.log_weights = log_weights.double().log_softmax(0)

    @classmethod
    def fit(cls, data: Tensor, labels: Tensor, *, dtype: torch.dtype = torch.float32) -> "GaussianMixtureDenoiser":
        """One Gaussian for each class that occurs in labels int [N], weighted by its share of data [N, *shape]."""
        classes = check_labels(labels, len(data))
        present, counts = classes.unique(return_counts=True)
        components = [GaussianDenoiser.fit(data[classes == label], dtype=dtype) for label in present]
        return cls(components, counts.double().log())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one point."""
        return self.components[0].shape

    def log_weights_at(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log w_c(x; sigma), float64 [B, C]: which class x is likely to come from."""
        joint = [component.log_prob(x, sigma) for component in self.components]
        return (torch.stack(joint, 1) + self.log_weights.to(x.device)).log_softmax(1)

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log sum_c pi_c N(x; mu_c, Cov_c + sigma^2), float64 [B]."""
        joint = torch.stack([component.log_prob(x, sigma) for component in self.components], 1)
        joint = joint + self.log_weights.to(x.device)
        # From the largest, which is a constant: the derivative of logsumexp is exp(joint - log_prob), which does not
        # sum to 1 where log_prob is large.
        best = joint.detach().amax(1, keepdim=True)
        return best[:, 0] + (joint - best).logsumexp(1)

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """r(x; sigma), [B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]."""
        weights = self.log_weights_at(x, sigma).exp().to(x.dtype)
        denoised = torch.zeros_like(x)
        for weight, component in zip(weights.T, self.components, strict=True):
            denoised += per_point(weight, x) * component(x, sigma)
        return denoised


#: The name that it had. `geodiff.MixtureDenoiser`, of data points that are normal distributions, is another class.
MixtureDenoiser = GaussianMixtureDenoiser
