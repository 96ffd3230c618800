"""The protocol of a noise process: adding noise, the training target, and solvers for sampling.

All tensors are in UNet order, "b c f h w"."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self, runtime_checkable

from jaxtyping import Float, Int
from torch import Generator, Tensor

# How a solver chooses its timesteps: as the model's schedule does, or each the first of its share.
SPACINGS = ("model", "leading")


@runtime_checkable
class Solver(Protocol):
    """Sampling steps from noise to latents for one chunk; a solver may be stateful.

    `timesteps` are Python numbers, so that no step has to synchronise with the device.
    """

    timesteps: list[int]

    def start(self, noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The input of the first step."""
        ...

    def step(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timestep: int,
        latents: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        """The latents after the step that starts at `timestep`; called once for each, in order."""
        ...


@runtime_checkable
class NoiseProcess(Protocol):
    """How noise is added to clean latents and removed again; a model folder stores its `name`.

    `solvers` are the values of `sampler.scheduler` it supports, the default first. Timesteps are
    integers, 0 is the least noise; the network receives them unchanged.
    """

    name: ClassVar[str]
    solvers: ClassVar[tuple[str, ...]]

    @property
    def prediction_type(self) -> str:
        """What the network predicts: epsilon, sample, v_prediction or flow_prediction."""
        ...

    def sample_timesteps(
        self, num_clips: int, generator: Generator, *, shift: float = 1.0
    ) -> Int[Tensor, " b"]:
        """The timesteps of one training step, on the generator's device; see
        `stratified_timesteps`."""
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
        """The training target."""
        ...

    def x0(
        self,
        prediction: Float[Tensor, "b c f h w"],
        timesteps: Int[Tensor, " b"],
        noisy: Float[Tensor, "b c f h w"],
    ) -> Float[Tensor, "b c f h w"]:
        """The clean latents implied by a prediction; exact if the prediction equals the target."""
        ...

    def signal(self, timesteps: Int[Tensor, " b"], *, like: Tensor) -> Float[Tensor, " b"]:
        """SNR / (1 + SNR) of the noisy latents, in the dtype and on the device of `like`."""
        ...

    def solver(self, scheduler: str, num_steps: int, *, spacing: str = "model") -> Solver:
        """A new solver; ValueError for a name that is none of `solvers`, and for a spacing that
        the process does not have."""
        ...

    def to_config(self) -> dict[str, object]:
        """Plain values from which `from_config` rebuilds the process."""
        ...

    @classmethod
    def from_config(cls, values: Mapping[str, object]) -> Self:
        """Rebuild a process. The values are untrusted: ValueError if they do not describe one."""
        ...


def check_solver(process: NoiseProcess, scheduler: str) -> None:
    """Raise ValueError if a process does not have this solver."""
    if scheduler not in process.solvers:
        raise ValueError(
            f"a model of {process.name} is sampled with sampler.scheduler="
            f"{' or '.join(process.solvers)}, got {scheduler!r}"
        )


def per_clip(values: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1 1"]:
    """One value per clip, shaped to broadcast over latents."""
    return values.view(-1, 1, 1, 1, 1)
