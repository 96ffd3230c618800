"""Flow matching on straight paths between data and noise (arXiv 2210.02747, 2209.03003).

At noise level `s`, `x_s = (1 - s) x0 + s noise`; the network predicts the velocity `noise - x0`,
and Euler's method integrates it backwards. Timestep t of N means s = (t + 1) / N: the last one is
pure noise, and the network receives integer timesteps as with any other process.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from jaxtyping import Float, Int
from torch import Generator, Tensor

from latentsync.config_files import check_types, defaults_of
from latentsync.diffusion.noise import stratified_timesteps
from latentsync.diffusion.process import check_solver, per_clip


class FlowMatching:
    """Straight paths between data and noise; the network learns their velocity."""

    name: ClassVar[str] = "flow_matching"
    solvers: ClassVar[tuple[str, ...]] = ("euler",)
    prediction_type = "flow_prediction"

    def __init__(self, *, num_train_timesteps: int = 1000) -> None:
        if num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps must be 1 or more, got {num_train_timesteps}")
        self.num_train_timesteps = num_train_timesteps

    def sample_timesteps(
        self, num_clips: int, generator: Generator, *, shift: float = 1.0
    ) -> Int[Tensor, " b"]:
        return stratified_timesteps(num_clips, self.num_train_timesteps, generator, shift=shift)

    def add_noise(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]:
        share = self._share(timesteps, latents)
        return (1 - share) * latents + share * noise

    def target(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]:
        """The velocity `noise - x0`, constant along the path."""
        return noise - latents

    def x0(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
        noisy: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        return noisy - self._share(timesteps, noisy) * prediction

    def signal(self, timesteps: Int[Tensor, " b"], *, like: Tensor) -> Float[Tensor, " b"]:
        share = self._share(timesteps, like).flatten()
        truth, noise = (1 - share).square(), share.square()
        return truth / (truth + noise)

    def solver(self, scheduler: str, num_steps: int, *, spacing: str = "model") -> "EulerSolver":
        check_solver(self, scheduler)
        if spacing != "model":
            raise ValueError(
                f"flow_matching has no {spacing} timesteps, which are DDPM's: leave out "
                "preset=official, or say sampler.spacing=model"
            )
        return EulerSolver(num_steps, self.num_train_timesteps)

    def to_config(self) -> dict[str, object]:
        return {"num_train_timesteps": self.num_train_timesteps}

    @classmethod
    def from_config(cls, values: Mapping[str, object]) -> Self:
        check_types(values, defaults_of(cls.__init__), cls.name)
        return cls(**values)  # type: ignore[arg-type]

    def _share(self, timesteps: Int[Tensor, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1 1"]:
        share = (timesteps.to(like.device).float() + 1) / self.num_train_timesteps
        return per_clip(share.to(like.dtype))


class EulerSolver:
    """Euler's method with equal steps from pure noise to none, on timesteps used in training."""

    def __init__(self, num_steps: int, num_train_timesteps: int) -> None:
        if num_steps > num_train_timesteps:
            raise ValueError(
                f"num_steps must be at most the {num_train_timesteps} timesteps that the model "
                f"was trained with, got {num_steps}"
            )
        shares = [1 - step / num_steps for step in range(num_steps)]
        self.timesteps = [round(share * num_train_timesteps) - 1 for share in shares]
        ends = [*self.timesteps[1:], -1]
        self._lengths = {
            timestep: (timestep - end) / num_train_timesteps
            for timestep, end in zip(self.timesteps, ends, strict=True)
        }

    def start(self, noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        return noise

    def step(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timestep: int,
        latents: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        return latents - self._lengths[timestep] * prediction
