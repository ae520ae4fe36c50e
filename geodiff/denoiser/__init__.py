"""The optimal denoiser: a module that takes the place of a denoising network.

module        OptimalDenoiser          ops        the steps it is made of, by themselves
operators     its torch operators      content    data sets as tensors, for operators
variants      tempered, smoothed, and of points that are distributions
velocity      flow matching
over_data     what all denoisers over data have in common
point_set     the answers              conditioning, mirroring, storage   what they stand on

Imports from `base`, `reference`, `data` and `backends`.
"""

from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.variants import MixtureDenoiser, SmoothedDenoiser, TemperedDenoiser

__all__ = ["MixtureDenoiser", "OptimalDenoiser", "SmoothedDenoiser", "TemperedDenoiser"]
