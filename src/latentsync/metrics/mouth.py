"""Whether the mouth closes in silence: silent frames by mel, opening by the mouth reader."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentsync.metrics.base import Figure, MeanOverClips

MEL_FRAMES_PER_SECOND = 80
# The official mel lives in [-4, 4]; -4 is digital silence.
SILENT_LEVEL = -3.0
CLOSED_BELOW = 0.15


def silent_frames(
    mel: Float[Tensor, "80 t"], num_frames: int, *, fps: float = 25.0, margin: int = 2
) -> Bool[Tensor, " f"]:
    """Frames without sound within `margin` frames, where lips may still be moving."""
    level = mel.mean(dim=0)
    per_frame = MEL_FRAMES_PER_SECOND / fps
    loud = torch.zeros(num_frames, dtype=torch.bool)
    for index in range(num_frames):
        begin, end = int(index * per_frame), int((index + 1) * per_frame) + 1
        loud[index] = bool((level[begin:end] > SILENT_LEVEL).any())
    near = torch.nn.functional.max_pool1d(
        loud[None].float(), kernel_size=2 * margin + 1, stride=1, padding=margin
    )
    return near[0] == 0


def closed_share(
    opening: Float[Tensor, " f"], silent: Bool[Tensor, " f"], *, below: float = CLOSED_BELOW
) -> float:
    """Share of silent frames with a closed mouth (opening in [0, 1]); NaN without silence."""
    return (opening[silent] < below).float().mean().item()


class ClosedInSilence(MeanOverClips):
    """Share of silent frames in which the mouth is closed."""

    needs = frozenset({"reading", "silent"})
    figures = (
        Figure(
            "closed_in_silence", "closed in silence", "share of silent frames", "higher", 0.0, 1.0,
            "here", "{:.0%}",
        ),
    )  # fmt: skip

    def update(self, reading: Float[Tensor, "f 4"], silent: Bool[Tensor, " f"]) -> None:
        """Add one clip."""
        self.add(torch.tensor([closed_share(reading[:, 0], silent)]))
