"""The parts of a report: each measures one claim on the data of a `Context` and answers with a `Finding`."""

from collections.abc import Callable

from geodiff.report.context import Context
from geodiff.report.finding import Finding
from geodiff.report.parts.ascent import annealed_mean_shift, likelihood_climbs
from geodiff.report.parts.convergence import denoised_first, memorisation, ode_jump
from geodiff.report.parts.flow import flow_from_optimal
from geodiff.report.parts.gaussian import gaussian_companion
from geodiff.report.parts.latents import latent_interpolation
from geodiff.report.parts.locality import local_denoisers
from geodiff.report.parts.noise import thin_shell_of_noise
from geodiff.report.parts.samplers import schedule_search
from geodiff.report.parts.score import score_agreement
from geodiff.report.parts.students import distilled
from geodiff.report.parts.symmetry import symmetry_breaking
from geodiff.report.parts.trajectory import almost_straight, magnitudes, monotone_distances

#: In the order of the page.
PARTS: tuple[Callable[[Context], Finding], ...] = (
    almost_straight,
    monotone_distances,
    magnitudes,
    score_agreement,
    flow_from_optimal,
    local_denoisers,
    denoised_first,
    thin_shell_of_noise,
    annealed_mean_shift,
    likelihood_climbs,
    ode_jump,
    memorisation,
    schedule_search,
    distilled,
    latent_interpolation,
    symmetry_breaking,
    gaussian_companion,
)
