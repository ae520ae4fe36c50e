"""torchcfm: how far its targets scatter about the optimal velocity (pip install --no-deps torchcfm, and pot)."""

import torch

import geodiff
from geodiff import paths

try:
    from torchcfm import ConditionalFlowMatcher
except ImportError as error:
    raise SystemExit(f"{error}; pip install pot && pip install --no-deps torchcfm") from None

data = geodiff.data.load("digits").data
denoiser = geodiff.OptimalDenoiser(data)
torch.manual_seed(0)
matcher = ConditionalFlowMatcher(sigma=0.0)

# x_t = (1 - t) n + t x_1: no network gets below this loss, and the optimal velocity has it.
x1 = data[torch.randint(len(data), (512,))] / 127.5 - 1
for level in (0.1, 0.3, 0.5, 0.7, 0.9):
    t, xt, target = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1, t=torch.full((512,), level))
    left = (denoiser.velocity(xt, t, path=paths.Linear("B")) - target).square().mean()
    print(f"t = {level}: least loss {left:.4f}, of targets of mean square {target.square().mean():.4f}")
