"""Solvers of the probability-flow ODE dx/dsigma = (x - r(x; sigma)) / sigma.

sampling    `sample`, the loop that keeps everything    loop, graph   how it runs: step by step, or as one CUDA graph
steps/      one step of each method                     registry      the methods by name
evaluation  what a step is made of                      trajectory    what comes out
jump, schedule_search                                   ODE-Jump; levels chosen by GITS

Imports from `base`, `schedules`, `backends` (what a combination is) and `denoiser`.
"""

from geodiff.base.denoiser_type import Denoiser
from geodiff.solvers.evaluation import Evaluate, Evaluator, Level, Step, blend, combine
from geodiff.solvers.jump import jump_levels, ode_jump
from geodiff.solvers.loop import Callback
from geodiff.solvers.registry import SOLVERS
from geodiff.solvers.sampling import sample
from geodiff.solvers.schedule_search import gits, gits_costs, gits_schedule, gits_search
from geodiff.solvers.steps.dpm_solver_pp import dpm_solver_pp_2m
from geodiff.solvers.steps.euler import euler
from geodiff.solvers.steps.heun import heun
from geodiff.solvers.steps.multistep import deis, ipndm
from geodiff.solvers.steps.two_stage import dpm_solver_2, one_parameter
from geodiff.solvers.trajectory import Trajectory

__all__ = [
    "SOLVERS",
    "Callback",
    "Denoiser",
    "Evaluate",
    "Evaluator",
    "Level",
    "Step",
    "Trajectory",
    "blend",
    "combine",
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
]
