"""Sizes, lengths and rates of two videos of a pair."""

from latentsync.media.formats import is_padded
from latentsync.media.video import VideoInfo

# Rates with a smaller relative difference are equal up to rounding.
SAME_RATE = 0.005


def check_sizes(pred: VideoInfo, ref: VideoInfo) -> None:
    # 4:2:0 output may be padded by a column or row to even sides: face positions are the same.
    if not is_padded((pred.width, pred.height), (ref.width, ref.height)):
        raise ValueError(
            f"{pred.path} is {pred.width}x{pred.height}, but {ref.path} is {ref.width}x{ref.height}"
        )


def notes_on_time(
    pred: VideoInfo, ref: VideoInfo, *, fps: float, max_frames: int
) -> dict[str, str]:
    """Notes on different length and rate: frames are paired by time, not by index."""
    notes = {}
    lengths = sorted(min(info.duration_seconds, max_frames / fps) for info in (pred, ref))
    if lengths[1] - lengths[0] > 1.5 / fps:
        notes["length"] = (
            f"{pred.path} lasts {pred.duration_seconds:.2f} s and {ref.path} "
            f"{ref.duration_seconds:.2f} s: only what both show is compared"
        )
    if abs(pred.fps / ref.fps - 1) > SAME_RATE:
        notes["rate"] = (
            f"{pred.path} has {float(pred.fps):.5g} fps and {ref.path} {float(ref.fps):.5g}: "
            f"frames are paired by time, on a grid of {fps:g} fps, and are up to half a frame "
            "apart; for exact pictures bring both to one rate"
        )
    return notes
