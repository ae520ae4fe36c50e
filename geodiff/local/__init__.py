"""Local denoisers: what networks that generalise seem to compute, over the whole data set and exactly.

module     LocalDenoiser: conditions, levels and answers          registry   kinds by name
patched    LS, ELS and PSPC-Square: windows of k(sigma)           masks      PSPC-Flex        pca   PCA locality
schedules  k(sigma), published ones and others
engine     what a backend offers: LocalQuery -> LocalAnswer       engines    which one serves a call
plain      the formulas (`geodiff.reference.local`) as an engine  gradient   of r in x and sigma

Imports from `base`, `reference`, `data`, `backends` and `denoiser`.
"""

from geodiff.local.masks import flex_masks
from geodiff.local.module import LocalDenoiser
from geodiff.local.registry import KINDS
from geodiff.local.schedules import PatchSchedule, published

__all__ = ["KINDS", "LocalDenoiser", "PatchSchedule", "flex_masks", "published"]
