"""Solvers of the probability-flow ODE, one step function each, and the loop that runs them."""

from geodiff.solvers.euler import euler
from geodiff.solvers.heun import heun
from geodiff.solvers.sample import SOLVERS, sample
from geodiff.solvers.step import Evaluate, Step

__all__ = ["SOLVERS", "Evaluate", "Step", "euler", "heun", "sample"]
