"""The paper's claims measured on any data set, as one page: `run` computes what is missing and writes it.

Imports from everything but `cli`.
"""

from geodiff.report.assembly import run
from geodiff.report.finding import Finding, Picture

__all__ = ["Finding", "Picture", "run"]
