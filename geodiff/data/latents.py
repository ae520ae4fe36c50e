"""EDM2's latents of Stable Diffusion's VAE: means and standard deviations, brought to the scale that EDM2 works in.

Format: float32 [8, h, w], channels 0-3 the mean of the posterior, 4-7 its standard deviation, raw (no factor 0.18215).
Final: (mean + std n) scale + bias, scale = 0.5 / raw_std, bias = -raw_mean scale, so that data have deviation 0.5.
Source: the public repository NVlabs/edm2, snapshot 4bf8162 (training/encoders.py).
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data.decoding import decoding

RAW_MEAN = (5.81, 3.25, 0.12, -2.15)
RAW_STD = (4.17, 4.62, 3.71, 3.28)
SIGMA_DATA = 0.5
#: What is said of a data set of means.
NOTE = "means of the VAE's posterior, scaled as EDM2 does; standard deviations left out, see geodiff.data.load_latents"


def mean(content: bytes, where: str) -> Tensor:
    """[4, h, w] float32, scaled: what the data are where the VAE's own noise is left aside."""
    raw = _raw(content, where)[:4]
    scale, bias = _affine()
    return raw * scale + bias


def deviation(content: bytes, where: str) -> Tensor:
    """[4, h, w] float32, scaled: point i is drawn from N(mean_i, diag deviation_i^2)."""
    return _raw(content, where)[4:] * _affine()[0]


def _affine() -> tuple[Tensor, Tensor]:
    scale = SIGMA_DATA / torch.tensor(RAW_STD, device="cpu")
    return scale[:, None, None], (-torch.tensor(RAW_MEAN, device="cpu") * scale)[:, None, None]


def _raw(content: bytes, where: str) -> Tensor:
    with decoding(Path(where), "a .npy array"):
        array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype != np.float32 or array.ndim != 3 or array.shape[0] != 8:
        raise DataError(
            where,
            f"expected float32 [8, h, w], 4 channels of means and 4 of standard deviations, found {array.dtype} "
            f"{list(array.shape)}; other latents: stack them to one .npy [N, C, h, w] in the scale of their use",
        )
    if not bool(np.isfinite(array).all()) or bool((array[4:] < 0).any()):
        raise DataError(where, "expected finite means, and standard deviations >= 0, found others; encode it anew")
    return torch.from_numpy(array)
