"""What the tests against other packages share: the digits, where samples end, and k-diffusion's heavy imports."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, schedules
from tests import vision

#: What k_diffusion/__init__.py imports for models, metrics and configuration, and its sampling.py does not.
UNUSED = ("cleanfid", "clip", "dctorch", "jsonmerge", "kornia", "skimage", "torchvision", "wandb")


class _Stand(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty stand-in for each package of UNUSED, and for nothing else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in UNUSED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        stand_in = ModuleType(spec.name)
        stand_in.__getattr__ = lambda name: MagicMock(name=f"{spec.name}.{name}")  # type: ignore[method-assign]
        return stand_in

    def exec_module(self, module: ModuleType) -> None:
        pass


def load(package: str, install: str) -> ModuleType:
    """The package, or a skip that says how to install it. Its import may warn: that is not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vision.load()  # before anyone else tries
        try:
            return importlib.import_module(package)
        except ModuleNotFoundError as error:
            pytest.skip(f"{error.name} is not installed: pip install {install}")


@pytest.fixture(scope="session")
def k_diffusion() -> ModuleType:
    """The package as the registry has it. Only what its sampling.py does not need is stood in for, while it loads."""
    finder = _Stand()
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in UNUSED}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        package = load("k_diffusion", "--no-deps k-diffusion, and optimal-denoiser[ecosystems]")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in UNUSED]:
            del sys.modules[name]
        sys.modules.update(before)
    return package


def package(name: str, install: str) -> Callable[[], ModuleType]:
    """A fixture that is the package of that name, loaded once."""

    @pytest.fixture(scope="session")
    def loaded() -> ModuleType:
        return load(name, install)

    return loaded


diffusers = package("diffusers", "optimal-denoiser[ecosystems]")
torchdiffeq = package("torchdiffeq", "optimal-denoiser[ecosystems]")
torchcfm = package("torchcfm", "--no-deps torchcfm, and pot")
smalldiffusion = package("smalldiffusion", "--no-deps smalldiffusion, and accelerate, torchvision, einops")
azula = package("azula", "--no-deps azula, and optimal-denoiser[ecosystems]")


@pytest.fixture(scope="session")
def flow_matching() -> ModuleType:
    load("flow_matching.solver", "--no-deps flow_matching, and optimal-denoiser[ecosystems]")
    return load("flow_matching.path.scheduler", "--no-deps flow_matching, and optimal-denoiser[ecosystems]")


@pytest.fixture(scope="session")
def digits() -> OptimalDenoiser:
    """1797 points of shape [1, 8, 8]."""
    return OptimalDenoiser("digits")


@pytest.fixture(scope="session")
def noise() -> Tensor:
    """64 noises of level 1, [64, 1, 8, 8] float32."""
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(7))


Nearest = Callable[[Tensor], tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def nearest(digits: OptimalDenoiser) -> Nearest:
    """x [B, 1, 8, 8] -> index [B] of the nearest data point, and how far it is."""
    data = (digits.data.double() / 127.5 - 1).flatten(1)

    def find(x: Tensor) -> tuple[Tensor, Tensor]:
        distance, index = torch.cdist(x.double().flatten(1), data, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        return index, distance

    return find


@pytest.fixture(scope="session")
def heun_ends(digits: OptimalDenoiser, noise: Tensor, nearest: Nearest) -> Callable[[float], Tensor]:
    """sigma_max -> index [64] of the data points on which our Heun, in 200 steps, lands from sigma_max * noise."""
    known: dict[float, Tensor] = {}

    def ends(sigma_max: float) -> Tensor:
        if sigma_max not in known:
            sigmas = schedules.karras(200, sigma_max=sigma_max)
            index, distance = nearest(geodiff.sample(digits, sigma_max * noise, sigmas).states[-1])
            assert distance.max() < 1e-5
            known[sigma_max] = index
        return known[sigma_max]

    return ends
