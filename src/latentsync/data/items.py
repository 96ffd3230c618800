"""What an item of a data set contains: the values of conf/data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.data.clips import AudioStates
from latentsync.data.windows import Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Settings of the items of a `ClipDataset`; `both`, `train` and `val` in conf/data are fields
    of it."""

    num_frames: int = 16
    stride: int = 1
    windows_per_clip: int = 1
    """With more than one, every value of an item has that many windows as its first axis."""
    samples_per_clip: int = 1
    """How many different windows an epoch takes from each clip."""
    max_items: int | None = None
    """An epoch shows the first so many items and no others, to overfit on them; None: all."""

    with_reference: bool = True
    reference_gap: Sequence[int] | None = None
    """The least and the most frames between the first frames of a window and of its reference.
    None is the official rule, no frame shared; larger least values keep the mouth of the window
    further from what the network may copy."""
    same_pose: bool = False
    """The reference is one of those whose head is turned most like the window's."""

    with_pixels: bool = True
    with_latents: bool | str | Path = False
    with_mel: bool = True
    with_audio: bool | AudioStates = True
    """An `AudioStates` names the encoder whose states an item holds; True takes those that the set
    was prepared with."""
    with_truth: bool = False
    audio_before: int = 4
    audio_after: int = 6
    mask: str = "mask"
    resolution: int | None = None

    in_memory: bool = False
    reader: str = "pyav"
    """What decodes the clips, `pyav` or `decord`."""
    packed: bool = False
    """Items hold frames as uint8 and no mask, a quarter of the bytes and less on the way to the
    device; `ClipDataset.unpack` makes of a batch of them what it is without."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.with_mel and self.stride != 1:
            raise ValueError(f"mel needs consecutive frames: stride is {self.stride}, make it 1")
        if self.gap is not None and not 0 <= self.gap[0] <= self.gap[1]:
            raise ValueError(
                f"reference_gap must be [least, most], 0 <= least <= most, got {[*self.gap]}"
            )

    @property
    def gap(self) -> Gap | None:
        """`reference_gap` as a pair."""
        if self.reference_gap is None:
            return None
        least, most = self.reference_gap
        return least, most
