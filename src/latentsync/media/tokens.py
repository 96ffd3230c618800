"""Audio states => the tokens of video frames among them; whoever loads data needs no network."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

# State rate of Mel and Whisper encoders, in Hz.
STATES_PER_SECOND = 50


def frame_tokens(
    states: Float[Tensor, "n l d"],
    frames: Int[Tensor, " f"],
    *,
    before: int = 4,
    after: int = 6,
    fps: float = 25.0,
    rate: float = STATES_PER_SECOND,
) -> Float[Tensor, "f s d"]:
    """The states around each video frame, time outer and layer inner; edges are repeated.

    `rate` is the encoder's state rate in Hz.
    """
    rows = token_rows(frames, before=before, after=after, fps=fps, rate=rate)
    return rearrange(states[rows.clamp(0, states.shape[0] - 1)], "f n l d -> f (n l) d")


def token_rows(
    frames: Int[Tensor, " f"],
    *,
    before: int,
    after: int,
    fps: float,
    rate: float = STATES_PER_SECOND,
) -> Int[Tensor, "f n"]:
    """Indices of the states around each frame; some may lie before the first or after the last."""
    centres = (frames.double() * rate / fps).floor().long()
    return centres[:, None] + torch.arange(-before, after, device=frames.device)
