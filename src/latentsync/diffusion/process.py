"""What a noise process is: how training noises latents, what the network then predicts, and how
sampling goes back. Everything here is in UNet order, "b c f h w"."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self, runtime_checkable

from jaxtyping import Float, Int
from torch import Generator, Tensor

# How a solver chooses its timesteps: as the model's schedule does, or each the first of its share.
SPACINGS = ("model", "leading")


@runtime_checkable
class Solver(Protocol):
    """One way from noise to latents, for one chunk: a solver may remember its steps.

    `timesteps` are numbers, not tensors, so that no step waits for the device.
    """

    timesteps: list[int]

    def start(self, noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """What the first step gets."""
        ...

    def step(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timestep: int,
        latents: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        """The latents after the step that begins at `timestep`; called once each, in order."""
        ...


@runtime_checkable
class NoiseProcess(Protocol):
    """How noise comes to clean latents and goes again; a model folder holds it by its `name`.

    `solvers` are the values of `sampler.scheduler` that it has, the one to fall back to first.
    Timesteps are whole numbers, 0 the least noise; the network is told them as they are.
    """

    name: ClassVar[str]
    solvers: ClassVar[tuple[str, ...]]

    @property
    def prediction_type(self) -> str:
        """What the network predicts: epsilon, sample, v_prediction, or flow_prediction."""
        ...

    def sample_timesteps(self, num_clips: int, generator: Generator) -> Int[Tensor, " b"]:
        """The timesteps of one training step, on the generator's device."""
        ...

    def add_noise(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]: ...

    def target(
        self,
        latents: Float[Tensor, "b c f h w"],
        noise: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c f h w"]:
        """What the network shall predict."""
        ...

    def x0(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
        noisy: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        """The clean latents that a prediction amounts to; those of a target are exact."""
        ...

    def signal(self, timesteps: Int[Tensor, " b"], *, like: Tensor) -> Float[Tensor, " b"]:
        """SNR / (1 + SNR) of the noisy latents, in the dtype and on the device of `like`."""
        ...

    def solver(self, scheduler: str, num_steps: int, *, spacing: str = "model") -> Solver:
        """A fresh solver; ValueError for a name that is none of `solvers`, and for a spacing that
        the process does not have."""
        ...

    def to_config(self) -> dict[str, object]:
        """Plain values, of which `from_config` makes the process again."""
        ...

    @classmethod
    def from_config(cls, values: Mapping[str, object]) -> Self:
        """ValueError for values that describe no such process: anybody may have written them."""
        ...


def check_solver(process: NoiseProcess, scheduler: str) -> None:
    """ValueError for a solver that a process does not have."""
    if scheduler not in process.solvers:
        raise ValueError(
            f"a model of {process.name} is sampled with sampler.scheduler="
            f"{' or '.join(process.solvers)}, got {scheduler!r}"
        )


def per_clip(values: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1 1"]:
    """A number for each clip, to multiply latents with."""
    return values.view(-1, 1, 1, 1, 1)
