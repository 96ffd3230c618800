"""The equations of diffusion that LatentSync adds to a library schedule, and its sampling loop.

A schedule (diffusers) gives `x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise`, `a_t` its
`alphas_cumprod`. Everything here is in UNet order, "b c f h w".
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from jaxtyping import Float, Int
from torch import Generator, Tensor

log = logging.getLogger(__name__)

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "unipc": UniPCMultistepScheduler,
}


def mixed_noise(
    latents: Float[Tensor, "b c f h w"],
    *,
    alpha: float = 1.0,
    generator: Generator | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Noise of variance 1 whose frames correlate by alpha^2 / (1 + alpha^2).

    Frames share part of their noise (PYoCo, arXiv 2305.10474), so that the mouth does not
    flicker when sampling starts from one noise for all frames.
    """
    shared = randn_like(latents[:, :, :1], generator) * alpha
    own = randn_like(latents, generator)
    return (own + shared) / (1 + alpha**2) ** 0.5


def stratified_timesteps(
    num_clips: int, num_timesteps: int, generator: Generator
) -> Int[Tensor, " b"]:
    """One timestep a clip, each uniform, spread evenly over the batch to calm the gradient."""
    device = generator.device
    offset = torch.rand((), generator=generator, device=device)
    order = torch.randperm(num_clips, generator=generator, device=device)
    positions = (order + offset) / num_clips
    return (positions * num_timesteps).long().clamp(max=num_timesteps - 1)


def noised(
    scheduler: SchedulerMixin,
    latents: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c f h w"]:
    """`x_t` of the schedule's training timesteps.

    Not the library's `add_noise`: that of a multistep solver goes by the order of its own steps.
    """
    signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1, 1)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def one_step_x0(
    scheduler: SchedulerMixin,
    prediction: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
    noisy: Float[Tensor, "b c f h w"],
) -> Float[Tensor, "b c f h w"]:
    """The clean latents that a prediction at `timesteps` amounts to, whatever it predicts."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    signal = scheduler.alphas_cumprod.to(noisy)[timesteps].view(-1, 1, 1, 1, 1)
    if kind == "epsilon":
        return (noisy - (1 - signal).sqrt() * prediction) / signal.sqrt()
    if kind == "v_prediction":
        return signal.sqrt() * noisy - (1 - signal).sqrt() * prediction
    raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {kind!r}")


def training_target(
    scheduler: SchedulerMixin,
    latents: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c f h w"]:
    """What the network shall predict, by the schedule's `prediction_type`."""
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        # Progressive distillation (arXiv 2202.00512); not every schedule of the library has it.
        signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1, 1)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents
    targets = {"epsilon": noise, "sample": latents}
    if kind not in targets:
        raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {kind!r}")
    return targets[kind]


def guided(
    unconditional: Float[Tensor, "*n"], conditional: Float[Tensor, "*n"], scale: float
) -> Float[Tensor, "*n"]:
    """Classifier-free guidance (arXiv 2207.12598): away from the answer without audio."""
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True, slots=True)
class Sampler:
    """How noise becomes faces: the solver, its steps, how much the audio is stressed, and whether
    the drawn part takes on the colours around it (the official pipeline does not).

    `scheduler`: ddim, dpmpp, unipc; or lcm, which needs a UNet distilled for it (latent
    consistency, arXiv 2310.04378): any other draws blurred mouths with it.
    `guidance_interval`: the share of the steps, from 0 to 1, that are guided; a step outside needs
    one pass of the network instead of two (arXiv 2404.07724). Step i of n is guided if i / n lies
    in [start, end).
    `deepcache_interval`: the deep part of the UNet runs in every so many steps only (1: in all).
    `parity`: draw for draw what the official pipeline does. Latents are samples of the VAE's
    posterior, from the generator that drew the noise; timesteps lead with an offset of 1; and for
    `lipsync`: windows of audio are cut every 30 s and two more than it lasts, the last chunk stays
    short, the faces are their own reference, and the whole crop goes back into the frame.
    """

    scheduler: str = "ddim"
    num_steps: int = 20
    guidance_scale: float = 1.5
    guidance_interval: Sequence[float] = (0.0, 1.0)
    match_colours: bool = True
    deepcache_interval: int = 1
    parity: bool = False

    def __post_init__(self) -> None:
        if self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"scheduler must be one of {sorted(SCHEDULERS)}, got {self.scheduler!r}"
            )
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be 1 or more, got {self.num_steps}")
        if self.guidance_scale < 0:
            raise ValueError(f"guidance_scale must be 0 or more, got {self.guidance_scale}")
        start, end = self.guidance_interval
        # A config gives a list, which would compare unequal and change under one's hands.
        object.__setattr__(self, "guidance_interval", (float(start), float(end)))
        if not 0 <= start <= end <= 1:
            raise ValueError(
                "guidance_interval must be two shares of the steps, 0 <= start <= end <= 1, "
                f"got {[start, end]}"
            )
        if self.deepcache_interval < 1:
            raise ValueError(
                f"deepcache_interval must be 1 (off) or more, got {self.deepcache_interval}"
            )
        if self.scheduler == "lcm":
            log.warning("scheduler=lcm needs a UNet distilled for it; any other draws blurred")

    def passes(self) -> tuple[int, int]:
        """How often a chunk goes through the whole UNet, and through its shallow part alone.

        A guided step takes two, with and without audio.
        """
        whole = shallow = cached = 0
        for step in range(self.num_steps):
            clips = 2 if self.is_guided(step) else 1
            if step % self.deepcache_interval == 0 or clips > cached:
                whole, cached = whole + clips, clips
            else:
                shallow += clips
        return whole, shallow

    def is_guided(self, step: int) -> bool:
        """Whether the step (counted from 0) is drawn away from the answer without audio."""
        start, end = (share * self.num_steps for share in self.guidance_interval)
        # Shares such as 1 / 3 must not lose a step to rounding.
        # The official pipeline guides above 1 only.
        wanted = self.guidance_scale > 1.0 if self.parity else self.guidance_scale != 1.0
        return wanted and start - 1e-6 <= step < end - 1e-6

    def solver(self, trained_with: SchedulerMixin) -> SchedulerMixin:
        """A fresh solver on the schedule a model was trained with.

        Multistep solvers remember their last steps, so every chunk needs one of its own.
        """
        leading = {"timestep_spacing": "leading", "steps_offset": 1} if self.parity else {}
        solver = SCHEDULERS[self.scheduler].from_config(trained_with.config, **leading)
        solver.set_timesteps(self.num_steps)
        return solver


def sampling_steps(
    predict: Callable[[Float[Tensor, "b c f h w"], int], Float[Tensor, "b c f h w"]],
    noise: Float[Tensor, "b c f h w"],
    solver: SchedulerMixin,
) -> Iterator[Float[Tensor, "b c f h w"]]:
    """The latents after each step of the solver, in the noise's dtype and on its device.

    `predict` is called once a step, in order, with the noisy latents and their timestep.
    """
    latents = noise * solver.init_noise_sigma
    # Numbers, not tensors, so that no step waits for the device.
    timesteps = solver.timesteps.tolist()
    if not isinstance(solver, DDIMScheduler):  # which keeps no place in its steps
        solver.set_begin_index(0)
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        prediction = predict(solver.scale_model_input(latents, timestep), timestep)
        if isinstance(solver, LCMScheduler):
            latents = consistent_step(solver, prediction, timestep, following, latents, noise)
        else:
            latents = solver.step(prediction, timestep, latents).prev_sample
        yield latents


def consistent_step(
    solver: LCMScheduler,
    prediction: Float[Tensor, "b c f h w"],
    timestep: int,
    following: int | None,
    latents: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
) -> Float[Tensor, "b c f h w"]:
    """A step of a consistency model: to clean latents, and back to the noise it all began with.

    The library's own step draws new noise for every frame, which would make the mouth flicker.
    """
    times = torch.full((len(latents),), timestep, device=latents.device)
    skip, out = solver.get_scalings_for_boundary_condition_discrete(timestep)
    clean = out * one_step_x0(solver, prediction, times, latents) + skip * latents
    if following is None:
        return clean
    return solver.add_noise(clean, noise, torch.full_like(times, following))


def randn_like(tensor: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise; drawn where the generator lives, so a seed means the same on a GPU."""
    device = tensor.device if generator is None else generator.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(
        tensor.device
    )
