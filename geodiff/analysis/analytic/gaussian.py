"""The Wiener denoiser: the optimal denoiser of Gaussian data, which every data set has one of."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_data, check_query, check_sigma, check_tensor
from geodiff.base.dtypes import PRECISE
from geodiff.reference.formula import model_space
from geodiff.solvers.sampling import check_schedule
from geodiff.solvers.trajectory import Trajectory

_TILE = 2**24  # the most numbers of the data that are held in float64 at a time


class GaussianDenoiser:
    """r(x; sigma) = mu + U diag(lambda / (lambda + sigma^2)) U^T (x - mu), the optimal denoiser of N(mu, U lambda U^T).

    mean       [*shape] float32 or float64, on whose device and in whose dtype everything is kept
    basis      [d, k] with orthonormal columns U; k < d: the variance is 0 in all other directions
    variances  [k] lambda >= 0

    Calling it takes what every denoiser takes, and `trajectory` solves its ODE without a solver. Wiener; as a companion
    of the optimal denoiser Wang and Vastola, 2311.10892. Raises TypeError or ValueError that names the argument.
    """

    def __init__(self, mean: Tensor, basis: Tensor, variances: Tensor) -> None:
        mean = check_tensor(mean, "mean", PRECISE)
        d = mean.numel()
        if basis.ndim != 2 or basis.shape[0] != d or basis.shape[1] > d:
            raise ValueError(
                f"basis: expected shape [d, k], d = {d}, found {list(basis.shape)}; allowed k <= d columns"
            )
        if variances.shape != basis.shape[1:] or not bool((variances >= 0).all()):
            raise ValueError(
                f"variances: expected [k] = {list(basis.shape[1:])} numbers, found {list(variances.shape)} and a "
                f"lowest of {variances.min() if variances.numel() else math.nan:g}; allowed lambda >= 0, one per column"
            )
        self.mean = mean
        self.basis = basis.to(mean)
        self.variances = variances.to(mean)

    @classmethod
    def fit(cls, data: Tensor, *, dtype: torch.dtype = torch.float32) -> "GaussianDenoiser":
        """mu = sum_i x_i / N and Cov = sum_i (x_i - mu)(x_i - mu)^T / N of data [N, *shape], uint8 pixels or floating.

        One eigendecomposition, of the d x d covariance (gathered tile by tile) or, for N < d, of the N x N inner
        products. Worked out in float64, kept in `dtype`. Raises TypeError or ValueError for no data.
        """
        data = check_data(data)
        n, d = len(data), data[0].numel()
        tiles = data.flatten(1).split(max(1, _TILE // d))
        mean = torch.stack([model_space(tile, torch.float64).sum(0) for tile in tiles]).sum(0) / n
        if n < d:
            centred = model_space(data.flatten(1), torch.float64) - mean
            values, vectors = torch.linalg.eigh(centred @ centred.T)  # [N], [N, N]
            kept = values > values.max() * n * torch.finfo(torch.float64).eps
            basis = centred.T @ (vectors[:, kept] / values[kept].sqrt())
            variances = values[kept] / n
        else:
            covariance = torch.zeros(d, d, dtype=torch.float64, device=data.device)
            for tile in tiles:
                centred = model_space(tile, torch.float64) - mean
                covariance.addmm_(centred.T, centred)
            variances, basis = torch.linalg.eigh(covariance / n)
        return cls(mean.reshape(data.shape[1:]).to(dtype), basis, variances.clamp_min(0))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one point."""
        return tuple(self.mean.shape)

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """r(x; sigma), [B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]."""
        levels = check_sigma(sigma, len(check_query(x, self.shape)), device=x.device)[:, None]  # [B, 1]
        shrunk = self._coordinates(x) * (self.variances / (self.variances + levels.square())).to(x.dtype)
        return self.mean.to(x) + (shrunk @ self.basis.T.to(x)).reshape(x.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log N(x; mu, Cov + sigma^2), [B], in float64; a basis kept in float32 leaves about 1e-7 |x - mu| / sigma."""
        levels = check_sigma(sigma, len(check_query(x, self.shape)), device=x.device)[:, None].square()  # [B, 1]
        centred = (x.double() - self.mean.double()).flatten(1)
        inside = centred @ self.basis.double()
        # Not as |x - mu|^2 - |inside|^2: a basis in float32 would leave a rounding of both, to be divided by sigma^2.
        outside = (centred - inside @ self.basis.double().T).square().sum(1)
        variances = self.variances.double() + levels  # [B, k]
        missing = centred.shape[1] - len(self.variances)
        quadratic = (inside.square() / variances).sum(1) + (outside / levels[:, 0] if missing else 0)
        log_determinant = variances.log().sum(1) + missing * levels[:, 0].log()
        return -(quadratic + log_determinant + centred.shape[1] * math.log(2 * math.pi)) / 2

    def sample(self, count: int, sigma: float, *, generator: torch.Generator | None = None) -> Tensor:
        """count draws from N(mu, Cov + sigma^2), [count, *shape]: the data as a Gaussian, at noise level sigma >= 0."""
        z = torch.randn(count, self.mean.numel(), generator=generator, dtype=self.mean.dtype, device="cpu").to(
            self.mean.device
        )
        inside = z @ self.basis
        stretch = (self.variances + sigma**2).sqrt() - sigma
        return self.mean + (sigma * z + (inside * stretch) @ self.basis.T).reshape(-1, *self.shape)

    def trajectory(self, noise: Tensor, sigmas: Tensor | Sequence[float]) -> Trajectory:
        """x_s - mu = U diag(sqrt((sigma_s^2 + lambda) / (sigma_0^2 + lambda))) U^T (x_0 - mu), the solution of the ODE.

        noise [B, *shape] at sigmas[0]; sigmas [S + 1] as for `geodiff.sample`, the last may be 0. Directions outside U
        shrink with sigma. Exact at any spacing (to the dtype of noise; derived, and Wang and Vastola, 2311.10892).
        """
        levels = check_schedule(sigmas)
        coordinates = self._coordinates(check_query(noise, self.shape, name="noise"))
        basis, mean, variances = self.basis.T.to(noise), self.mean.to(noise), self.variances.double()
        outside = noise - mean - (coordinates @ basis).reshape(noise.shape)
        states = noise.new_empty(len(levels), *noise.shape)
        outputs = noise.new_empty(len(levels) - 1, *noise.shape)
        for step, sigma in enumerate(levels):
            scale = ((sigma**2 + variances) / (levels[0] ** 2 + variances)).sqrt()
            inside = (coordinates * scale.to(noise)) @ basis
            states[step] = mean + inside.reshape(noise.shape) + outside * (sigma / levels[0])
            if step < len(outputs):
                shrunk = coordinates * (scale * variances / (variances + sigma**2)).to(noise)
                outputs[step] = mean + (shrunk @ basis).reshape(noise.shape)
        states[0] = noise
        metadata = {"solver": "closed form", "evaluations": "0"}
        return Trajectory(torch.tensor(levels, dtype=torch.float64, device=noise.device), states, outputs, metadata)

    def _coordinates(self, x: Tensor) -> Tensor:
        """U^T (x - mu), [B, k] in the dtype of x."""
        return (x - self.mean.to(x)).flatten(1) @ self.basis.to(x)
