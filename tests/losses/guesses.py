"""Hand-made predictions for tests of losses."""

import torch

from latentsync.models import Denoised


def guess(
    target: torch.Tensor,
    *,
    prediction: torch.Tensor | None = None,
    x0: torch.Tensor | None = None,
    timesteps: list[int] | None = None,
    signal: list[float] | None = None,
    prediction_type: str = "epsilon",
) -> Denoised:
    """A prediction of `target`, correct unless given; the lower half of every frame is painted.

    Pixels are the first three channels of x0.
    """
    num_clips, _, num_frames, height, width = target.shape
    mask = torch.ones(num_clips, 1, num_frames, height, width)
    mask[..., height // 2 :, :] = 0
    return Denoised(
        prediction=target.clone() if prediction is None else prediction,
        target=target,
        noisy=target,
        timesteps=torch.tensor(timesteps or [0] * num_clips),
        x0=target if x0 is None else x0,
        mask=mask,
        signal=torch.tensor(signal or [0.5] * num_clips),
        prediction_type=prediction_type,
        decode=lambda latents: latents.permute(0, 2, 1, 3, 4)[:, :, :3],
    )
