"""Bridges to the conventions of others: what networks predict, and the packages that sample with them.

EDM's sampler and k-diffusion's need no adapter: a denoiser of this package is called as r(x, sigma) there, too.
`geodiff.adapters.azula` and `geodiff.adapters.deepinv` need those packages, and so are imported by their own names.

Imports from `base`, `paths`, `denoiser` and `inverse`.
"""

from geodiff.adapters.analytic_diffusion_studio import StudioDenoiser
from geodiff.adapters.diffusers import DiffusersDenoiser, SchedulerModel
from geodiff.adapters.flow import FlowDenoiser, FlowModel
from geodiff.adapters.ode import probability_flow
from geodiff.adapters.parametrization import (
    abar_from_sigma,
    eps_to_v,
    eps_to_x0,
    score_to_x0,
    sigma_from_abar,
    v_to_eps,
    v_to_x0,
    ve_to_vp,
    vp_to_ve,
    x0_to_eps,
    x0_to_score,
    x0_to_v,
)
from geodiff.adapters.preconditioning import PreconditionedDenoiser, RawNetwork
from geodiff.adapters.smalldiffusion import SmallDiffusionModel

__all__ = [
    "DiffusersDenoiser",
    "FlowDenoiser",
    "FlowModel",
    "PreconditionedDenoiser",
    "RawNetwork",
    "SchedulerModel",
    "SmallDiffusionModel",
    "StudioDenoiser",
    "abar_from_sigma",
    "eps_to_v",
    "eps_to_x0",
    "probability_flow",
    "score_to_x0",
    "sigma_from_abar",
    "v_to_eps",
    "v_to_x0",
    "ve_to_vp",
    "vp_to_ve",
    "x0_to_eps",
    "x0_to_score",
    "x0_to_v",
]
