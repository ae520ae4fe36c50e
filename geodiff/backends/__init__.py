"""The backends: one engine a file over rows as stored, and the table that says which one serves which call.

engine     the interface         query      what is asked of it
cpu, cuda, triton, plain         the engines: compiled cores, Triton kernels, plain torch
table      who serves what       selection  which are here, which one is taken, and opening it

Imports from `base` and `reference`, and Triton's from `geodiff.kernels`; knows nothing of what stands above.
"""

from geodiff.backends.engine import Engine
from geodiff.backends.query import Query
from geodiff.backends.selection import NAMES, Engines, available, choose, explain, is_available, open_engine, serves

__all__ = [
    "NAMES", "Engine", "Engines", "Query", "available", "choose", "explain", "is_available", "open_engine", "serves"
]  # fmt: skip
