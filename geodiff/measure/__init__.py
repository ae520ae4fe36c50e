"""Measurements: is it right, how fast is it, and beside whom.

check      every backend against float64       benchmark         times with their errors
baselines  what others write, to compare with  baseline_process  those that need a process of their own
machine    what it is measured on              stopwatch         how a call is timed
record     results as files, with their origin peaks             what the machine could do
demo       64 samples, each evaluation checked

Imports from everything but `report` and `cli`.
"""

import pkgutil

__all__ = [module.name for module in pkgutil.iter_modules(__path__)]
