"""Linear operators with adjoint and proximal step, a file each.

Imports from `base`, and `analysis` for its eigenvalues.
"""

from geodiff.inverse.operators.bicubic import Bicubic
from geodiff.inverse.operators.blur import Blur, gaussian_kernel
from geodiff.inverse.operators.inpainting import Inpainting
from geodiff.inverse.operators.linear import Linear
from geodiff.inverse.operators.operator import Operator
from geodiff.inverse.operators.super_resolution import SuperResolution

__all__ = ["Bicubic", "Blur", "Inpainting", "Linear", "Operator", "SuperResolution", "gaussian_kernel"]
