"""Inverse problems y = A x_0 + sigma_n n, with any denoiser as the prior: the paper's section on restoration.

operators/  A with adjoint and proximal step, a file each     problem   a measurement and what it is of
methods/    DiffPIR, DPS, DPS with y_t, PiGDM, a file each    descent   what they share
exact_posterior   p(x_0 | y) over the data, without approximation

Imports from `base`, `schedules`, `reference`, `solvers` and `analysis`.
"""

from geodiff.inverse.descent import Options, Restoration
from geodiff.inverse.exact_posterior import ExactPosterior
from geodiff.inverse.methods.diffpir import diffpir
from geodiff.inverse.methods.dps import dps
from geodiff.inverse.methods.dps_noised import dps_noised
from geodiff.inverse.methods.pigdm import pigdm
from geodiff.inverse.operators import (
    Bicubic,
    Blur,
    Inpainting,
    Linear,
    Operator,
    SuperResolution,
    gaussian_kernel,
)
from geodiff.inverse.problem import Problem

__all__ = [
    "Bicubic",
    "Blur",
    "ExactPosterior",
    "Inpainting",
    "Linear",
    "Operator",
    "Options",
    "Problem",
    "Restoration",
    "SuperResolution",
    "diffpir",
    "dps",
    "dps_noised",
    "gaussian_kernel",
    "pigdm",
]
