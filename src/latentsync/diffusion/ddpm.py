"""Denoising diffusion (DDPM) on a diffusers schedule: its equations and its solvers.

A schedule gives `x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise` with `a_t` from its `alphas_cumprod`;
its `prediction_type` says what the network predicts.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from jaxtyping import Float, Int
from torch import Generator, Tensor

from latentsync.config_files import check_types, defaults_of, shown
from latentsync.diffusion.noise import stratified_timesteps
from latentsync.diffusion.process import Solver, check_solver, per_clip

# Solvers for sampling.
SOLVERS: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "unipc": UniPCMultistepScheduler,
}
# Schedules a model can be trained with: training needs `alphas_cumprod` and noise of variance 1.
SCHEDULES: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
}
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


class DDPM:
    """Diffusion on a diffusers schedule; the network predicts noise, velocity or data."""

    name: ClassVar[str] = "ddpm"
    solvers: ClassVar[tuple[str, ...]] = tuple(SOLVERS)

    def __init__(self, scheduler: SchedulerMixin) -> None:
        schedule_kind(scheduler)
        self.scheduler = scheduler

    @property
    def prediction_type(self) -> str:
        return self.scheduler.config.prediction_type

    def sample_timesteps(
        self, num_clips: int, generator: Generator, *, shift: float = 1.0
    ) -> Int[Tensor, " b"]:
        steps = self.scheduler.config.num_train_timesteps
        return stratified_timesteps(num_clips, steps, generator, shift=shift)

    def add_noise(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]:
        """`x_t` of the schedule's training timesteps.

        Not the library's `add_noise`: a multistep solver's depends on the order of its own steps.
        """
        signal = per_clip(self.signal(timesteps, like=latents))
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def target(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]:
        kind = self.prediction_type
        if kind == "v_prediction":
            # Progressive distillation (arXiv 2202.00512); not every schedule in diffusers has it.
            signal = per_clip(self.signal(timesteps, like=latents))
            return signal.sqrt() * noise - (1 - signal).sqrt() * latents
        targets = {"epsilon": noise, "sample": latents}
        if kind not in targets:
            raise ValueError(unknown_prediction(kind))
        return targets[kind]

    def x0(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
        noisy: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        kind = self.prediction_type
        if kind == "sample":
            return prediction
        signal = per_clip(self.signal(timesteps, like=noisy))
        if kind == "epsilon":
            return (noisy - (1 - signal).sqrt() * prediction) / signal.sqrt()
        if kind == "v_prediction":
            return signal.sqrt() * noisy - (1 - signal).sqrt() * prediction
        raise ValueError(unknown_prediction(kind))

    def signal(self, timesteps: Int[Tensor, " b"], *, like: Tensor) -> Float[Tensor, " b"]:
        return self.scheduler.alphas_cumprod.to(like)[timesteps]

    def solver(self, scheduler: str, num_steps: int, *, spacing: str = "model") -> Solver:
        """A new solver on the schedule; leading timesteps have an offset of 1."""
        check_solver(self, scheduler)
        leading = {"timestep_spacing": "leading", "steps_offset": 1}
        solver = SOLVERS[scheduler].from_config(
            self.scheduler.config, **(leading if spacing == "leading" else {})
        )
        solver.set_timesteps(num_steps)
        if isinstance(solver, LCMScheduler):
            return ConsistencySolver(solver)
        return ScheduleSolver(solver)

    def to_config(self) -> dict[str, object]:
        """The schedule's class name and its plain values, without keys specific to one version of
        diffusers."""
        kind = schedule_kind(self.scheduler)
        config = self.scheduler.config.items()
        return {"name": kind, **{key: value for key, value in config if not key.startswith("_")}}

    @classmethod
    def from_config(cls, values: Mapping[str, object]) -> Self:
        """The process of a described schedule; DDIM if the class is not named."""
        name = values.get("name", "ddim")
        if not isinstance(name, str) or name not in SCHEDULES:
            raise ValueError(
                f"no scheduler is called {shown(name)}; there are {', '.join(SCHEDULES)}"
            )
        kind = SCHEDULES[name]
        given = {key: value for key, value in values.items() if key != "name"}
        check_types(given, defaults_of(kind.__init__), "scheduler")
        num_timesteps = given.get("num_train_timesteps", 1000)
        if not isinstance(num_timesteps, int) or num_timesteps < 1:
            raise ValueError(f"num_train_timesteps must be 1 or more, got {shown(num_timesteps)}")
        scheduler = kind.from_config(given)
        prediction, signal = scheduler.config.prediction_type, scheduler.alphas_cumprod
        if prediction not in PREDICTION_TYPES:
            raise ValueError(unknown_prediction(prediction))
        if not bool(torch.all((signal >= 0) & (signal <= 1))):
            raise ValueError(
                f"the scheduler's betas leave no noise schedule (beta_start "
                f"{scheduler.config.beta_start}, beta_end {scheduler.config.beta_end})"
            )
        return cls(scheduler)


class ScheduleSolver:
    """A solver from diffusers."""

    def __init__(self, solver: SchedulerMixin) -> None:
        self._solver = solver
        self.timesteps: list[int] = solver.timesteps.tolist()
        if not isinstance(solver, DDIMScheduler):  # it does not track its position in the steps
            solver.set_begin_index(0)

    def start(self, noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        return noise * self._solver.init_noise_sigma

    def step(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timestep: int,
        latents: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        return self._solver.step(prediction, timestep, latents).prev_sample


class ConsistencySolver:
    """Consistency model steps: predict clean latents, then add back the initial noise.

    The step in diffusers samples new noise for every frame, which would make the mouth flicker.
    """

    def __init__(self, solver: LCMScheduler) -> None:
        self._solver = solver
        self.timesteps: list[int] = solver.timesteps.tolist()
        self._following = dict(zip(self.timesteps, self.timesteps[1:], strict=False))
        self._noise = torch.empty(0)

    def start(self, noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        self._noise = noise
        return noise * self._solver.init_noise_sigma

    def step(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timestep: int,
        latents: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        times = torch.full((len(latents),), timestep, device=latents.device)
        skip, out = self._solver.get_scalings_for_boundary_condition_discrete(timestep)
        x0 = DDPM(self._solver).x0(prediction, times, latents)
        clean = out * x0 + skip * latents
        if timestep not in self._following:
            return clean
        times = torch.full_like(times, self._following[timestep])
        return self._solver.add_noise(clean, self._noise, times)


def schedule_kind(scheduler: SchedulerMixin) -> str:
    """The name of a schedule's class; ValueError if a model folder cannot store it."""
    for name, kind in SCHEDULES.items():
        if type(scheduler) is kind:
            return name
    known = ", ".join(kind.__name__ for kind in SCHEDULES.values())
    raise ValueError(
        f"a model cannot be trained or saved with a {type(scheduler).__name__}; there are {known}"
    )


def unknown_prediction(kind: object) -> str:
    """The error for a prediction type that our networks do not support."""
    return f"prediction_type must be {', '.join(PREDICTION_TYPES)}, got {kind!r}"
