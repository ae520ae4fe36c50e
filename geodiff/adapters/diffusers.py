"""diffusers, both ways: a denoiser as the model that a scheduler asks, and a network with its scheduler as a denoiser.

Nothing is imported from diffusers: of a scheduler only `config`, `alphas_cumprod`, `timesteps` and `sigmas` are read.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from geodiff.adapters.flow import FlowModel
from geodiff.adapters.levels import cast_per_point, dtype_of
from geodiff.adapters.parametrization import eps_to_x0, sigma_from_abar, v_to_x0, x0_to_eps, x0_to_v
from geodiff.base.arguments import check_sigma, check_tensor
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import FLOATING

Convert = Callable[[Tensor, Tensor, Tensor], Tensor]


def _as_it_is(x: Tensor, value: Tensor, sigma: Tensor) -> Tensor:
    return value


#: prediction_type -> (from x0, to x0), each of (x, value, sigma)
PREDICTIONS: dict[str, tuple[Convert, Convert]] = {
    "sample": (_as_it_is, _as_it_is),
    "epsilon": (x0_to_eps, eps_to_x0),
    "v_prediction": (x0_to_v, v_to_x0),
}


#: How far bfloat16 may move a timestep, relative to it: rounded once, and once more when it is divided by 1000.
_BFLOAT16 = 2.0**-7

#: Attributes of schedulers that ask the network between the levels in `sigmas`, each at places of its own (KDPM2, SDE).
BETWEEN = ("sigmas_interpol", "mid_point_sigma")


#: Stands for sigma = infinity: r is then the mean of the data to 1e-9 of their size, and z tells nothing.
_FAR = 1e9


class Prediction(Tensor):
    """What a network predicts: a tensor, and as pipelines read it, `.sample`. Operations make plain tensors of it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def sample(self) -> Tensor:
        """The same as a plain tensor."""
        return self.as_subclass(Tensor)


class SchedulerModel(nn.Module):
    """The network that predicts what `scheduler` expects, from z = x / sqrt(1 + sigma^2), computed from r(x; sigma).

    Takes the place of the network in the usual loop, for schedulers of variance-preserving models (DDIM, EulerDiscrete,
    HeunDiscrete, DPMSolverMultistep, UniPC, ...) with prediction_type "sample", "epsilon" or "v_prediction":

        for t in scheduler.timesteps:
            x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample

    And for those of flow matching (FlowMatchEuler, -Heun, -LCM; others with use_flow_sigmas, "flow_prediction"): then
    it predicts v = n - x_0 from x_t = (1 - t) x_0 + t n, or with invert_sigmas x_1 - n. There t is the scheduler's
    sigma at its step, whatever the shift; the timestep passed in may be rounded to bfloat16, or divided by 1000.
    Over a denoiser of images a pipeline takes it for a network, too: DDIMPipeline(model, scheduler).

    denoiser   r(x [B, *shape], sigma 0-d float64, **conditions) -> [B, *shape]
    scheduler  the one that steps: where its levels are not those of training (Karras sigmas), they are read off it. A
               last level of pure noise (zero terminal SNR) is answered by the limit sigma -> infinity of r
    """

    def __init__(self, denoiser: Denoiser, scheduler: Any) -> None:
        super().__init__()
        if hasattr(scheduler, "precondition_outputs"):
            raise ValueError(
                f"scheduler: expected one of a variance-preserving model, found {type(scheduler).__name__}, which "
                f"preconditions by itself; allowed with geodiff.adapters.RawNetwork(denoiser, sigma_data)"
            )
        if any(hasattr(scheduler, name) for name in BETWEEN):
            raise ValueError(
                f"scheduler: expected one that asks at the levels of its `sigmas`, found {type(scheduler).__name__}, "
                f"which asks between them; allowed DDIM, EulerDiscrete, HeunDiscrete, DPMSolverMultistep, UniPC, ..."
            )
        self.denoiser = denoiser
        self.scheduler = scheduler
        self._flow: FlowModel | None = None
        if is_flow(scheduler):
            self._flow = FlowModel(denoiser, "B" if getattr(scheduler.config, "invert_sigmas", False) else "A")
        else:
            self._from_x0 = _prediction(scheduler)[0]

    def forward(
        self, z: Tensor, timestep: float | Tensor, *, return_dict: bool = True, **conditions: Any
    ) -> "Prediction | tuple[Tensor]":
        """The prediction [B, *shape] in the dtype of z, a tensor that is its own `.sample`; without return_dict (it,).

        timestep: the one of scheduler.timesteps that comes next, a number, 0-d, or [B] of equal ones
        """
        check_tensor(z, "z", FLOATING)
        prediction = self._predict(z, timestep, conditions)
        return prediction.as_subclass(Prediction) if return_dict else (prediction,)

    def _predict(self, z: Tensor, timestep: float | Tensor, conditions: dict[str, Any]) -> Tensor:
        if self._flow is not None:
            return self._flow(z, self.scheduler.sigmas[self._index(_one(timestep))].double(), **conditions)
        sigma = self.sigma(timestep).to(z.device)
        if sigma.isinf():
            return self._of_pure_noise(z, conditions)
        x = z * cast_per_point((1 + sigma.square()).sqrt(), z)
        return self._from_x0(x, self.denoiser(x, sigma, **conditions), sigma)

    def _of_pure_noise(self, z: Tensor, conditions: dict[str, Any]) -> Tensor:
        """At abar = 0: z tells nothing, and v = -x0."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            raise ValueError(
                f"scheduler: expected prediction_type 'v_prediction' or 'sample' with rescale_betas_zero_snr, found "
                f"{kind!r} of {type(self.scheduler).__name__}; allowed where the noise tells nothing of x0 are those"
            )
        far = min(_FAR, getattr(self.denoiser, "sigma_max", _FAR))
        x0 = self.denoiser(z * far, torch.tensor(far, dtype=torch.float64, device=z.device), **conditions)
        return x0 if kind == "sample" else -x0

    @property
    def config(self) -> SimpleNamespace:
        """What pipelines read: in_channels, out_channels, sample_size. AttributeError unless over images."""
        channels, height, width = self._shape_of_images()
        size = height if height == width else (height, width)
        return SimpleNamespace(in_channels=channels, out_channels=channels, sample_size=size)

    @property
    def dtype(self) -> torch.dtype:
        """What pipelines make noise in."""
        return dtype_of(self.denoiser, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where pipelines make noise: where the denoiser keeps its data or parameters."""
        data = getattr(self.denoiser, "data", None)
        return (
            data.device
            if isinstance(data, Tensor)
            else next((p.device for p in self.parameters()), torch.device("cpu"))
        )

    def _shape_of_images(self) -> tuple[int, int, int]:
        shape = getattr(self.denoiser, "shape", None)
        if shape is None or len(shape) != 3:
            raise AttributeError(f"denoiser: expected one over images, with a shape (C, H, W), found shape {shape}")
        channels, height, width = shape
        return channels, height, width

    def sigma(self, timestep: float | Tensor) -> Tensor:
        """The noise level of a timestep, 0-d float64; ValueError unless the scheduler is about to take that step."""
        scheduler, timestep = self.scheduler, _one(timestep)
        if not hasattr(scheduler, "sigmas"):  # then levels are those of training
            abar = scheduler.alphas_cumprod[int(timestep)].double()
            return sigma_from_abar(abar) if abar > 0 else torch.tensor(torch.inf, dtype=torch.float64, device="cpu")
        sigma = scheduler.sigmas[self._index(timestep)].double()
        return sigma if self._flow is None else self._flow.path.level(sigma)

    def _index(self, timestep: float | Tensor) -> int:
        """Which of the scheduler's `sigmas` it steps from next."""
        scheduler = self.scheduler
        # Schedulers of flow matching have timesteps from the start, others none.
        if getattr(scheduler, "num_inference_steps", None) is None:
            raise ValueError("scheduler: expected set_timesteps to have been called, found no timesteps")
        index = scheduler.step_index
        if index is None:  # before the first step
            index = getattr(scheduler, "begin_index", None)
        if index is None and self._flow is not None:
            index = 0
        if index is None:
            index = scheduler.index_for_timestep(timestep) if hasattr(scheduler, "index_for_timestep") else 0
        # Not looked up by timestep alone: schedulers round it to an integer that several levels may share.
        if index >= len(scheduler.timesteps) or not self._meant(float(timestep), float(scheduler.timesteps[index])):
            raise ValueError(
                f"timestep: expected that of step {index} of the scheduler, found {float(timestep):g}; "
                f"allowed the timesteps in order, set_timesteps before a new run"
            )
        return int(index)

    def _meant(self, asked: float, timestep: float) -> bool:
        if self._flow is None:
            return asked == timestep
        unit = self.scheduler.config.num_train_timesteps
        return any(abs(asked * scale - timestep) <= _BFLOAT16 * abs(timestep) for scale in (1, unit))


class DiffusersDenoiser(nn.Module):
    """r(x; sigma) from a network of diffusers that was trained with `scheduler`: x0 of its prediction at z, t(sigma).

    unet       unet(z [B, C, H, W], t [B], return_dict=False, **conditions)[0] -> [B, C, H, W]; called in its own dtype
    scheduler  of a variance-preserving model: `alphas_cumprod` [T] and `config.prediction_type` are read
    quantize   False: t is fractional, linear in log sigma between the training levels. True: t is the nearest level's

    Attributes: sigma_min, sigma_max, the training levels' ends (without a last level of pure noise, whose sigma is
    infinite); with round_sigma, what EDM's sampler reads.
    Raises ValueError for a sigma outside [sigma_min, sigma_max]: the network was not trained there.
    """

    def __init__(self, unet: nn.Module, scheduler: Any, quantize: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.quantize = quantize
        self._to_x0 = _prediction(scheduler)[1]
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"scheduler: expected one of a variance-preserving model, with `alphas_cumprod`, found "
                f"{type(scheduler).__name__}; allowed for a network that EDM preconditions: "
                f"geodiff.adapters.PreconditionedDenoiser"
            )
        shares = scheduler.alphas_cumprod
        levels = sigma_from_abar(shares[shares > 0])  # rises
        self._log_levels = levels.log().cpu()
        self.sigma_min, self.sigma_max = levels[0].item(), levels[-1].item()

    def forward(
        self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, **conditions: Any
    ) -> Tensor:
        """[B, *shape] in the dtype of x. sigma: number, 0-d, [B] or [B, 1, ...]; conditions go to the network."""
        check_tensor(x, "x", FLOATING)
        if class_labels is not None:
            conditions["class_labels"] = class_labels
        levels = check_sigma(sigma, len(x), device=x.device)
        dtype = dtype_of(self.unet, x.dtype)
        z = x * cast_per_point((1 + levels.square()).rsqrt(), x)
        output = self.unet(z.to(dtype), self.timestep(levels).to(x.device), return_dict=False, **conditions)[0]
        return self._to_x0(x, output.to(x.dtype), levels)

    def timestep(self, sigma: Tensor) -> Tensor:
        """t(sigma), float32 in the shape of sigma: what the network takes."""
        logs = sigma.detach().to("cpu", torch.float64).log()
        low, high = self._log_levels[0].item(), self._log_levels[-1].item()
        slack = 1e-6  # an end of the range that went through float32
        bad = logs[~((logs >= low - slack) & (logs <= high + slack))]
        if bad.numel():
            raise ValueError(
                f"sigma: expected a level that the network was trained on, found {bad[0].exp().item():g}; "
                f"allowed {self.sigma_min:g} <= sigma <= {self.sigma_max:g}"
            )
        if self.quantize:
            return self._nearest(logs).float()
        above = torch.searchsorted(self._log_levels, logs).clamp(1, len(self._log_levels) - 1)
        start, end = self._log_levels[above - 1], self._log_levels[above]
        return (above - 1 + ((logs - start) / (end - start)).clamp(0, 1)).float()

    def round_sigma(self, sigma: float | Tensor) -> Tensor:
        """The level used for sigma: the nearest training level (in log sigma) if quantize, else sigma itself."""
        sigma = torch.as_tensor(sigma)
        if not self.quantize:
            return sigma
        if not sigma.is_floating_point():
            sigma = sigma.float()
        rounded = self._log_levels[self._nearest(sigma.detach().to("cpu", torch.float64).log())].exp()
        return rounded.to(sigma.device, sigma.dtype)

    def _nearest(self, logs: Tensor) -> Tensor:
        above = torch.searchsorted(self._log_levels, logs).clamp(1, len(self._log_levels) - 1)
        nearer_below = logs - self._log_levels[above - 1] < self._log_levels[above] - logs
        return torch.where(nearer_below, above - 1, above)


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler expects a velocity of flow matching, at levels that are times of the linear path."""
    config = getattr(scheduler, "config", None)
    found = getattr(config, "prediction_type", None)  # FlowMatch... have none
    if getattr(config, "use_flow_sigmas", False):
        return found == "flow_prediction"
    return found is None and type(scheduler).__name__.startswith("FlowMatch") and hasattr(scheduler, "sigmas")


def _one(timestep: float | Tensor) -> float | Tensor:
    """The timestep of all points: loops often expand it to one for each."""
    if not isinstance(timestep, Tensor) or timestep.ndim == 0:
        return timestep
    flat = timestep.flatten()
    if flat.numel() == 0 or (flat != flat[0]).any():
        raise ValueError(
            f"timestep: expected one for all points, found {flat.tolist()[:8]}; allowed a number, 0-d, or [B] all equal"
        )
    return flat[0]


def _prediction(scheduler: Any) -> tuple[Convert, Convert]:
    config = getattr(scheduler, "config", None)
    if is_flow(scheduler):
        raise ValueError(
            f"scheduler: expected one of a variance-preserving model, found {type(scheduler).__name__}, of flow "
            f"matching; allowed for a network of flow matching: geodiff.adapters.FlowDenoiser(network, 'A', scale=1000)"
        )
    found = "flow" if getattr(config, "use_flow_sigmas", False) else getattr(config, "prediction_type", None)
    if found not in PREDICTIONS:
        allowed = ", ".join(PREDICTIONS)
        raise ValueError(f"scheduler: expected a known prediction_type, found {found!r}; allowed {allowed}")
    return PREDICTIONS[found]
