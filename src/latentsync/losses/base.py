"""The loss protocol: a callable that declares what it reads, and its weight in training."""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Literal, Protocol, TypedDict, cast, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from latentsync.batch import Batch
from latentsync.models import Denoised

Part = Literal["latents", "x0", "pixels", "truth"]
PARTS = frozenset(get_args(Part))


@runtime_checkable
class Loss(Protocol):
    """A training loss, `(denoised, batch) -> scalar`.

    `reads` declares its inputs, and training computes only those:

    - `latents`: prediction and target of every clip, as latents;
    - `x0`: the predicted clean latents of the clips that are not too noisy;
    - `pixels`: the decoded frames of the same clips;
    - `truth`: the true frames, `batch["pixels"]`.
    """

    @property
    def reads(self) -> Set[Part]: ...

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]: ...


class WeightedLoss(TypedDict):
    """A loss with its weight; a weight of 0 means it is logged but not trained on."""

    weight: float
    loss: Loss


def check_losses(losses: Mapping[str, object]) -> None:
    """Raise ValueError unless every term is a `WeightedLoss` whose loss declares what it reads."""
    weights = {}
    for name, term in losses.items():
        if not isinstance(term, Mapping) or set(term) != {"weight", "loss"}:
            given = sorted(term) if isinstance(term, Mapping) else term
            raise ValueError(
                f"losses.{name} is {given}: each loss is given as {{weight: ..., loss: ...}}"
            )
        if not isinstance(term["loss"], Loss):
            raise ValueError(
                f"losses.{name}: {type(term['loss']).__name__} does not say what it reads: give it "
                f"an attribute reads, a set of {', '.join(sorted(PARTS))}"
            )
        unknown = sorted(term["loss"].reads - PARTS)
        if unknown:
            raise ValueError(
                f"losses.{name} reads {', '.join(unknown)}; there are {', '.join(sorted(PARTS))}"
            )
        weights[name] = term["weight"]
    if not any(weights.values()):
        raise ValueError(f"all losses have the weight 0: {weights}; nothing would train")


def judges_clean(loss: Loss) -> bool:
    """Whether a loss reads the predicted clean clip, which is unreliable at high noise levels."""
    return not loss.reads.isdisjoint({"x0", "pixels"})


def clear_clips(
    denoised: Denoised, batch: Batch, max_timestep: int
) -> tuple[Denoised, Batch, float]:
    """The clips with a timestep of at most `max_timestep`, and their share of the batch.

    At the last timestep of the published schedule only 0.5 % of the variance is signal, so the x0
    derived from a noise prediction carries 14.6 times its error: losses on frames would measure
    noise there, and decoding it would be wasted work.
    """
    kept = (denoised.timesteps <= max_timestep).nonzero()[:, 0]
    clear = replace(
        denoised,
        prediction=denoised.prediction[kept],
        target=denoised.target[kept],
        noisy=denoised.noisy[kept],
        timesteps=denoised.timesteps[kept],
        x0=denoised.x0[kept],
        mask=denoised.mask[kept],
        signal=denoised.signal[kept],
    )
    shown = {
        name: value[kept] if isinstance(value, Tensor) else value for name, value in batch.items()
    }
    return clear, cast(Batch, shown), len(kept) / len(denoised.timesteps)
