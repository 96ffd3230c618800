"""What a loss is: a callable that says what it reads, and its weight in a training."""

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
    """What training asks of a prediction: `(denoised, batch) -> scalar`.

    `reads` says of what, and the training prepares that and no more:

    - `latents`: the prediction and its target, in latents, of every clip;
    - `x0`: the predicted clean latents, of clips that are not too noisy to be judged;
    - `pixels`: the decoded frames of the same clips;
    - `truth`: the true frames, `batch["pixels"]`.
    """

    @property
    def reads(self) -> Set[Part]: ...

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]: ...


class WeightedLoss(TypedDict):
    """One term of a training; with a weight of 0 it is reported and not trained on."""

    weight: float
    loss: Loss


def check_losses(losses: Mapping[str, object]) -> None:
    """ValueError unless every term is a `WeightedLoss` whose loss says what it reads."""
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
    """Whether a loss judges the predicted clean clip, which is worth little at much noise."""
    return not loss.reads.isdisjoint({"x0", "pixels"})


def clear_clips(
    denoised: Denoised, batch: Batch, max_timestep: int
) -> tuple[Denoised, Batch, float]:
    """The clips noised to `max_timestep` at most, and their share of the batch.

    At the last timestep the published schedule leaves 0.5 % of the variance to the truth, so the
    x0 that a noise prediction amounts to is 14.6 times the error of the prediction: what a judge
    of pictures says about it is noise, and decoding it is wasted.
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
