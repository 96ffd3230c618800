"""Which clips of a batch are clear enough to be judged as pictures."""

from dataclasses import replace
from typing import cast

from torch import Tensor

from latentsync.batch import Batch
from latentsync.models import Denoised


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
