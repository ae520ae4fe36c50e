"""One step of each solver, a file a method. Steps are made of `combine` and `blend`, and look at nothing else.

Imports from `base` and from `geodiff.solvers.evaluation`.
"""
