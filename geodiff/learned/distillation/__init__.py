"""Distillation: a student that goes in a step, or a few, where a teacher's ODE goes in many. One file a method.

kd, dfno  of stored trajectories (pair_store)     pd  along the sampling trajectory
cd, ct    along the denoising trajectory          run the loop; settings, method, generation

Imports from the rest of `geodiff.learned`, and from `solvers`.
"""

from geodiff.learned.distillation.generation import evaluations, generate
from geodiff.learned.distillation.pair_store import PairStore
from geodiff.learned.distillation.run import distill
from geodiff.learned.distillation.settings import METHODS, Distillation

__all__ = ["METHODS", "Distillation", "PairStore", "distill", "evaluations", "generate"]
