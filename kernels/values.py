"""What kernels of local denoisers share: values of up to four channels in centred units, and an online softmax."""

import triton
import triton.language as tl

from geodiff.kernels.refine import centred

#: Lower than any logit, and finite: a difference of two infinite ones would be NaN.
LOWEST = tl.constexpr(-1e300)


@triton.jit
def asked(x_ptr, at, there, shift, unit):
    """x in centred units."""
    return tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float64) * unit - shift


@triton.jit
def asked_values(x_ptr, at, plane, first, second, third, fourth, shift, unit, G: tl.constexpr):
    """x of G channels where the image has them, as four; those beyond G are any."""
    x0 = asked(x_ptr, at, first, shift, unit)
    x1, x2, x3 = x0, x0, x0
    if G > 1:
        x1 = asked(x_ptr, at + plane, second, shift, unit)
    if G > 2:
        x2 = asked(x_ptr, at + 2 * plane, third, shift, unit)
    if G > 3:
        x3 = asked(x_ptr, at + 3 * plane, fourth, shift, unit)
    return x0, x1, x2, x3


@triton.jit
def row_values(row_ptr, at, plane, first, second, third, fourth, G: tl.constexpr):
    """The same of a row."""
    y0 = centred(tl.load(row_ptr + at, mask=first, other=0))
    y1, y2, y3 = y0, y0, y0
    if G > 1:
        y1 = centred(tl.load(row_ptr + at + plane, mask=second, other=0))
    if G > 2:
        y2 = centred(tl.load(row_ptr + at + 2 * plane, mask=third, other=0))
    if G > 3:
        y3 = centred(tl.load(row_ptr + at + 3 * plane, mask=fourth, other=0))
    return y0, y1, y2, y3


@triton.jit
def squares_of(x0, x1, x2, x3, y0, y1, y2, y3, there, G: tl.constexpr):
    """e of an image of G channels."""
    e = (x0 - y0) * (x0 - y0)
    if G > 1:
        e += (x1 - y1) * (x1 - y1)
    if G > 2:
        e += (x2 - y2) * (x2 - y2)
    if G > 3:
        e += (x3 - y3) * (x3 - y3)
    return tl.where(there, e, 0.0)


@triton.jit
def store_values(out, pixels, s0, s1, s2, s3, first, second, third, fourth, G: tl.constexpr):
    """The sums of G channels, a plane of pixels each, where the image has them."""
    tl.store(out, s0, mask=first)
    if G > 1:
        tl.store(out + pixels, s1, mask=second)
    if G > 2:
        tl.store(out + 2 * pixels, s2, mask=third)
    if G > 3:
        tl.store(out + 3 * pixels, s3, mask=fourth)


@triton.jit
def raised(best, logit):
    """The new largest logit, whether it is this one, by what sums so far fade, and what this one weighs."""
    higher = logit > best
    fade = tl.exp(-tl.abs(logit - best))  # of the sums so far, or else of this one
    return tl.where(higher, logit, best), higher, tl.where(higher, fade, 1.0), tl.where(higher, 1.0, fade)
