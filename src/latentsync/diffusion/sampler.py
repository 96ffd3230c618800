"""The sampling loop: from noise to faces."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from jaxtyping import Float
from torch import Tensor

from latentsync.diffusion.ddpm import SOLVERS
from latentsync.diffusion.known import NOISE_PROCESSES
from latentsync.diffusion.process import SPACINGS, NoiseProcess, Solver

log = logging.getLogger(__name__)


def guided(
    unconditional: Float[Tensor, "*n"], conditional: Float[Tensor, "*n"], scale: float
) -> Float[Tensor, "*n"]:
    """Classifier-free guidance (arXiv 2207.12598), away from the prediction without audio."""
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Sampling settings: solver, steps, guidance, and whether the generated region is matched to
    the colours around it (`match_colours`; the official pipeline does not).

    `scheduler`: ddim, dpmpp, unipc; or lcm (latent consistency, arXiv 2310.04378), which needs a
    UNet distilled for it: any other generates blurred mouths. Noise processes other than DDPM have
    their own solvers: euler for flow matching.
    `guidance_interval`: the range of steps that are guided, as fractions from 0 to 1; other steps
    need one pass of the network instead of two (arXiv 2404.07724). Step i of n is guided if i / n
    lies in [start, end).
    `deepcache_interval`: run the deep part of the UNet only in every n-th step (1: in all).
    `spacing`: timesteps spaced as in the model's schedule ("model"), or "leading" with an offset of
    1. `guides_below_one`: whether scales below 1 count as guidance, too. `sample_latents`: sample
    the VAE's posterior instead of using its mean, with the generator of the noise, chunk after
    chunk. The official pipeline uses "leading", false and true.
    """

    scheduler: str = "ddim"
    num_steps: int = 20
    guidance_scale: float = 1.5
    guidance_interval: Sequence[float] = (0.0, 1.0)
    match_colours: bool = True
    deepcache_interval: int = 1
    spacing: str = "model"
    guides_below_one: bool = True
    sample_latents: bool = False

    def __post_init__(self) -> None:
        if self.scheduler not in SOLVERS:
            known = {name for process in NOISE_PROCESSES for name in process.solvers}
            if self.scheduler not in known:
                raise ValueError(
                    f"scheduler must be one of {sorted(known)}, got {self.scheduler!r}"
                )
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be 1 or more, got {self.num_steps}")
        if self.guidance_scale < 0:
            raise ValueError(f"guidance_scale must be 0 or more, got {self.guidance_scale}")
        start, end = self.guidance_interval
        # A config passes a list, which is mutable and does not compare equal to a tuple.
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
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {SPACINGS}, got {self.spacing!r}")
        if self.scheduler == "lcm":
            log.warning("scheduler=lcm needs a UNet distilled for it; any other draws blurred")

    def passes(self) -> tuple[int, int]:
        """How many passes a chunk makes through the whole UNet, and through its shallow part alone.

        A guided step takes two passes, with and without audio.
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
        """Whether a step (counted from 0) uses guidance."""
        start, end = (share * self.num_steps for share in self.guidance_interval)
        # Fractions such as 1 / 3 must not lose a step to rounding.
        wanted = self.guidance_scale > 1.0 or (self.guidance_scale < 1.0 and self.guides_below_one)
        return wanted and start - 1e-6 <= step < end - 1e-6

    def solver(self, process: NoiseProcess) -> Solver:
        """A new solver of the model's noise process.

        Multistep solvers remember previous steps, so every chunk needs its own.
        """
        return process.solver(self.scheduler, self.num_steps, spacing=self.spacing)

    def suited_to(self, process: NoiseProcess) -> Self:
        """This sampler with a solver the process supports: presets name those of DDPM."""
        if self.scheduler in process.solvers:
            return self
        solver = process.solvers[0]
        log.warning(
            "a model of %s is not sampled with %s: %s takes its place, in as many steps",
            process.name, self.scheduler, solver,
        )  # fmt: skip
        return replace(self, scheduler=solver)


def sampling_steps(
    predict: Callable[[Float[Tensor, "b c f h w"], int], Float[Tensor, "b c f h w"]],
    noise: Float[Tensor, "b c f h w"],
    solver: Solver,
) -> Iterator[Float[Tensor, "b c f h w"]]:
    """The latents after each step of the solver, in the noise's dtype and on its device.

    `predict` is called once per step, in order, with the noisy latents and their timestep.
    """
    latents = solver.start(noise)
    for timestep in solver.timesteps:
        latents = solver.step(predict(latents, timestep), timestep, latents)
        yield latents
