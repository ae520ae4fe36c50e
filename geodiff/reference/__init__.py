"""The formulas in plain PyTorch: twin and oracle of every kernel.

formula    r*, log p_sigma and the rest of the posterior, in difference form
contract   how far an answer is off, in units of contract 1
flow       the velocity of flow matching
couplings  the velocity under other couplings of noise and data
local      LS, ELS, PSPC and PCA locality, by one scheme; forms: their posteriors; locality: masks of PCA and heatmaps
normals    r* where points are normal distributions
moments    second moments of the posterior, and draws from it
remembering  which rows a trajectory may leave out; known_products: inner products that it carries; one query at a time
baseline   the two-product form that everybody writes: what times are compared with

Imports from `base` and `paths`.
"""

from geodiff.reference import forms, known_products, local, remembering
from geodiff.reference.baseline import two_product
from geodiff.reference.couplings import empirical_target, semidiscrete_velocity
from geodiff.reference.flow import velocity
from geodiff.reference.formula import denoise, model_space, posterior
from geodiff.reference.normals import mixture

__all__ = [
    "denoise",
    "empirical_target",
    "forms",
    "known_products",
    "local",
    "mixture",
    "model_space",
    "posterior",
    "remembering",
    "semidiscrete_velocity",
    "two_product",
    "velocity",
]
