"""Every denoiser by way of every adapter is itself: list an adapter in WAYS, and all denoisers go through it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import adapters
from tests.adapters.test_adapters import table
from tests.protocols.test_denoisers import DATA, DENOISERS, LABELS, MASKS, Denoiser, X

STEP = 300
LEVEL = adapters.sigma_from_abar(table("sample").alphas_cumprod[STEP]).item()  # of a scheduler, too
#: (denoiser, x, conditions) -> r(x, LEVEL), asked for in the adapter's own terms
Way = Callable[..., Tensor]


def by_preconditioning(denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
    return adapters.PreconditionedDenoiser(adapters.RawNetwork(denoiser))(x, LEVEL, **conditions)


def by_diffusers(kind: str) -> Way:
    def way(denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
        z, _ = adapters.ve_to_vp(x, LEVEL)
        found = adapters.SchedulerModel(denoiser, table(kind))(z, STEP, **conditions)
        if kind == "sample":
            return found
        back = adapters.eps_to_x0 if kind == "epsilon" else adapters.v_to_x0
        return back(x, found, LEVEL)

    return way


def by_studio(denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
    z, _ = adapters.ve_to_vp(x, LEVEL)
    return adapters.StudioDenoiser(denoiser, table("epsilon")).denoise(z, STEP, **conditions)


def by_smalldiffusion(denoiser: Denoiser, x: Tensor, class_labels: Tensor | None = None) -> Tensor:
    model = adapters.SmallDiffusionModel(denoiser, x.shape[1:])
    return adapters.eps_to_x0(x, model(x, torch.tensor(LEVEL), cond=class_labels), LEVEL)


def by_flow(convention: str) -> Way:
    """x_t = (1 - t) x_0 + t n, so that sigma = t / (1 - t); in convention B the same the other way round."""

    def way(denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
        t = LEVEL / (1 + LEVEL)
        model = adapters.FlowModel(denoiser, convention)
        v = model(x * (1 - t), t if convention == "A" else 1 - t, **conditions)
        return x * (1 - t) - t * v if convention == "A" else x * (1 - t) + t * v

    return way


def by_its_flow_and_back(denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
    return adapters.FlowDenoiser(adapters.FlowModel(denoiser))(x, LEVEL, **conditions)


def by_probability_flow(denoiser: Denoiser, x: Tensor) -> Tensor:
    """dx / d log sigma = x - r."""
    return x - adapters.probability_flow(denoiser)(torch.tensor(LEVEL).double().log(), x)


WAYS: dict[str, Way] = {
    "preconditioning": by_preconditioning,
    **{f"diffusers, {kind}": by_diffusers(kind) for kind in ("sample", "epsilon", "v_prediction")},
    "studio": by_studio,
    "smalldiffusion": by_smalldiffusion,
    "flow, A": by_flow("A"),
    "flow, B": by_flow("B"),
    "flow and back": by_its_flow_and_back,
    "probability flow": by_probability_flow,
}
#: With labels, where there are any.
LABELLED: dict[str, Callable[[], Denoiser]] = {
    "optimal": lambda: geodiff.OptimalDenoiser(DATA, labels=LABELS),
    **{
        kind: lambda kind=kind: geodiff.LocalDenoiser(
            DATA, kind=kind, masks=MASKS if kind == "pspc_flex" else None, labels=LABELS
        )
        for kind in geodiff.local.KINDS
    },
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", list(DENOISERS))
@torch.no_grad()
def test_a_denoiser_by_way_of_an_adapter_is_itself(name: str, way: str) -> None:
    denoiser = DENOISERS[name]()
    expected = denoiser(X, LEVEL)
    found = WAYS[way](denoiser, X)
    assert found.dtype == X.dtype
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "probability flow"])
@pytest.mark.parametrize("name", list(LABELLED))
@torch.no_grad()
def test_labels_come_through(name: str, way: str) -> None:
    denoiser, labels = LABELLED[name](), torch.tensor([3, 0, 1, 2, 0])
    expected = denoiser(X, LEVEL, class_labels=labels)
    assert not torch.allclose(expected, denoiser(X, LEVEL), atol=1e-2)
    torch.testing.assert_close(WAYS[way](denoiser, X, class_labels=labels), expected, rtol=2e-5, atol=2e-5)
