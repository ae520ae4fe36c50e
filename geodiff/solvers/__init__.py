"""Solvers of the probability-flow ODE, one step function each, and the loop that runs them."""

from geodiff.solvers.dpm_solver_pp import dpm_solver_pp_2m
from geodiff.solvers.euler import euler
from geodiff.solvers.gits import gits, gits_costs, gits_schedule, gits_search
from geodiff.solvers.heun import heun
from geodiff.solvers.jump import jump_levels, ode_jump
from geodiff.solvers.multistep import deis, ipndm
from geodiff.solvers.named import SOLVERS
from geodiff.solvers.sample import Denoiser, sample
from geodiff.solvers.step import Evaluate, Step, Visited
from geodiff.solvers.two_stage import dpm_solver_2, one_parameter
from geodiff.solvers.walk import Callback, walk

__all__ = [
    "SOLVERS",
    "Callback",
    "Denoiser",
    "Evaluate",
    "Step",
    "Visited",
    "deis",
    "dpm_solver_2",
    "dpm_solver_pp_2m",
    "euler",
    "gits",
    "gits_costs",
    "gits_schedule",
    "gits_search",
    "heun",
    "ipndm",
    "jump_levels",
    "ode_jump",
    "one_parameter",
    "sample",
    "walk",
]
