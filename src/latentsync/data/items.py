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
    """If more than one, windows are the first axis of every value of an item."""
    samples_per_clip: int = 1
    """Number of different windows per clip and epoch."""
    max_items: int | None = None
    """An epoch has only this many items, the first ones, to overfit on them; None: all."""

    with_reference: bool = True
    reference_gap: Sequence[int] | None = None
    """Minimum and maximum distance in frames between the starts of a window and of its reference.
    None is the official rule: no shared frames. With a larger minimum the network can copy less of
    the window's mouth from the reference."""
    same_pose: bool = False
    """Sample the reference from windows whose head is turned similarly."""

    reference_alike: int | None = None
    """Sample the reference frame by frame, each from so many frames of the same source, at
    `reference_gap` from it, whose masked latents are most alike: head and collar as in the window,
    another mouth."""

    with_pixels: bool = True
    with_latents: bool | str | Path = False
    with_mel: bool = True
    with_audio: bool | AudioStates = True
    """An `AudioStates` selects the encoder of the states; True uses those that the set was prepared
    with."""
    with_truth: bool = False
    audio_before: int = 4
    audio_after: int = 6
    mask: str = "mask"
    resolution: int | None = None

    in_memory: bool = False
    reader: str = "pyav"
    """The decoder of clips, `pyav` or `decord`."""
    packed: bool = False
    """Items hold frames as uint8 and no mask, which takes a quarter of the bytes or less on the way
    to the device; `ClipDataset.unpack` converts a batch of them."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.with_mel and self.stride != 1:
            raise ValueError(f"mel needs consecutive frames: stride is {self.stride}, make it 1")
        if self.gap is not None and not 0 <= self.gap[0] <= self.gap[1]:
            raise ValueError(
                f"reference_gap must be [least, most], 0 <= least <= most, got {[*self.gap]}"
            )

        if self.reference_alike is not None:
            if self.reference_alike < 1:
                raise ValueError(
                    f"reference_alike must be 1 frame or more, got {self.reference_alike}"
                )
            if not self.with_latents or self.with_pixels or self.gap is None:
                raise ValueError(
                    "reference_alike compares latents: set with_latents=true, with_pixels=false "
                    "and reference_gap=[least, most]"
                )
            if self.same_pose:
                raise ValueError(
                    "reference_alike and same_pose both choose the reference: set one of them"
                )

    @property
    def gap(self) -> Gap | None:
        """`reference_gap` as a pair."""
        if self.reference_gap is None:
            return None
        least, most = self.reference_gap
        return least, most
