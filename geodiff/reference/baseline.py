"""The fast form that everybody writes in plain PyTorch: the honest baseline for timing, and no oracle."""

from torch import Tensor

from geodiff.base.arguments import check_sigma


def two_product(x: Tensor, data: Tensor, sigma: float | Tensor, half_norms: Tensor | None = None) -> Tensor:
    """r = softmax((x X^T - |x_i|^2 / 2) / sigma^2) X, [B, *shape]: two large matrix products with a softmax between.

    x [B, *shape] and data X [N, *shape] in model space and of one floating dtype; half_norms [N] = |x_i|^2 / 2, worked
    out here if None. This is what people write, and the fastest form in plain PyTorch; but the logits cancel, so in
    float32 it is wrong at small sigma, and data and weights are held whole: compare times with it, not results.
    """
    queries, points = x.flatten(1), data.flatten(1)
    levels = check_sigma(sigma, len(x), device=x.device).to(x.dtype)[:, None]  # [B, 1]
    if half_norms is None:
        half_norms = points.square().sum(1) / 2
    logits = (queries @ points.T - half_norms) / levels.square()  # [B, N]
    return (logits.softmax(1) @ points).reshape(x.shape)
