"""Display times of a video's stored frames, and the frames of an output as long as the audio."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from jaxtyping import Int32, Int64

from latentsync.media.limits import check_rate

LOOPS = ("to_and_fro", "repeat", "hold", "stop")
TAILS = ("keep", "cut")

# A frame shown for longer is repeated every 1/25 s, because its mouth has to move meanwhile.
LONGEST_SECONDS = Fraction(1, 5)
REPEAT_SECONDS = Fraction(1, 25)
# Times beyond these are errors, and would take days to generate.
MAX_FPS = 1000
MAX_STILL_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Display times of the stored frames: each until the next one starts, the last until `end`.

    In ticks of `time_base` seconds from the file's time zero (`container.time_zero`); the first
    frame starts at tick 0, `starts` strictly increase.
    """

    time_base: Fraction
    starts: Int64[np.ndarray, " n"]
    end: int

    def __post_init__(self) -> None:
        _check_times(self.time_base, self.starts, self.end)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def seconds(self) -> float:
        return float(self.end * self.time_base)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of an output: entry i shows stored frame `numbers[i]` from tick `starts[i]` on.

    Each lasts until the next one starts, the last until `end`; ticks of `time_base` seconds.
    """

    time_base: Fraction
    numbers: Int32[np.ndarray, " m"]
    starts: Int64[np.ndarray, " m"]
    end: int

    def __post_init__(self) -> None:
        _check_times(self.time_base, self.starts, self.end)
        assert len(self.numbers) == len(self.starts), "one number per entry"

    def __len__(self) -> int:
        return len(self.numbers)

    def seconds(self, entry: int) -> float:
        """Start of the entry; for `len(timeline)`, the end of the last one."""
        return float(self.start(entry))

    def start(self, entry: int) -> Fraction:
        """As `seconds`, exact."""
        ticks = self.end if entry == len(self) else int(self.starts[entry])
        return ticks * self.time_base


def build_timeline(
    times: FrameTimes,
    *,
    seconds: float,
    loop: str = "to_and_fro",
    tail: str = "keep",
    fps: Fraction | None = None,
    source_fps: Fraction | None = None,
) -> Timeline:
    """A timeline as long as the audio, to half a frame; `tail="keep"` keeps all of a longer video.

    fps None keeps the source's frames and times (frames longer than 0.2 s are repeated every 0.04
    s); a number resamples to that rate, by the rule of ffmpeg's fps filter. `source_fps` is the
    rate in the file's header: where the file's clock is too coarse for it (Matroska's ticks are
    1 ms) and frames are off by no more than a tick, they come at that rate exactly. `loop`, for a
    video shorter than the audio: play it forwards and backwards (frames at the turns twice), repeat
    it, hold the last frame, or stop with the video.
    """
    check_rate(len(times), times.end * times.time_base)
    if seconds <= 0:
        raise ValueError(f"the sound must last more than 0 s, got {seconds}")
    for name, value, choices in (("loop", loop, LOOPS), ("tail", tail, TAILS)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    check_bounded(times, fps)
    if fps is not None:
        shown = _on_grid(times, fps)
    elif source_fps is not None and is_rounded(times, source_fps):
        shown = _steady(len(times), source_fps)
    else:
        shown = _repeat_long(times)
    end = round_half_up(Fraction(seconds).limit_denominator(10**9) / shown.time_base)
    if end <= shown.end and tail == "keep":
        return shown
    if end > shown.end and loop != "stop":
        shown = _extend(shown, end, loop)
    return _cut(shown, end)


def check_bounded(times: FrameTimes, fps: Fraction | None) -> None:
    """ValueError if a small file would need an absurd number of frames."""
    rate = len(times) / (times.end * times.time_base) if fps is None else fps
    if rate > MAX_FPS:
        raise ValueError(
            f"{float(rate):,.0f} frames a second are asked for, {MAX_FPS:,} at most are drawn: "
            "give a timing.fps, say timing.fps=25"
        )
    stays = np.diff(times.starts, append=times.end)
    longest = int(stays.argmax())
    if stays[longest] * times.time_base > MAX_STILL_SECONDS:
        raise ValueError(
            f"frame {longest} of the video is shown for "
            f"{float(stays[longest] * times.time_base):,.0f} s, up to a jump in its time stamps; "
            f"{MAX_STILL_SECONDS:,} s at most are drawn: cut the video there, or convert it again"
        )


def round_half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def _check_times(time_base: Fraction, starts: np.ndarray, end: int) -> None:
    if len(starts) == 0 or starts[0] != 0 or end <= starts[-1] or (np.diff(starts) <= 0).any():
        raise ValueError(
            "frames must start at tick 0, then rise strictly and end later, got starts "
            f"{starts[:4].tolist()}..{starts[-4:].tolist()} and end {end}"
        )
    if time_base <= 0:
        raise ValueError(f"a tick must last more than 0 s, got {time_base}")


def is_rounded(times: FrameTimes, fps: Fraction) -> bool:
    """Whether the frames come at a steady rate, whose times are rounded to ticks."""
    ticks = 1 / (fps * times.time_base)
    if ticks.denominator == 1 or 1 / fps > LONGEST_SECONDS:
        return False
    exact = np.arange(len(times)) * float(ticks)
    # The end is a start and a duration, both rounded.
    is_whole = abs(times.end - len(times) * ticks) <= 2
    return bool(is_whole and (np.abs(times.starts - exact) <= 1).all())


def _steady(length: int, fps: Fraction) -> Timeline:
    numbers = np.arange(length)
    return Timeline(1 / fps, numbers.astype(np.int32), numbers, length)


def _repeat_long(times: FrameTimes) -> Timeline:
    """Every stored frame at its time, long ones repeated."""
    stays = np.diff(times.starts, append=times.end)
    step = max(1, round_half_up(REPEAT_SECONDS / times.time_base))
    repeats = np.where(stays > int(LONGEST_SECONDS / times.time_base), -(-stays // step), 1)
    numbers = np.repeat(np.arange(len(times)), repeats)
    nth = np.arange(len(numbers)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    starts = times.starts[numbers] + nth * step
    return Timeline(times.time_base, numbers.astype(np.int32), starts, times.end)


def _on_grid(times: FrameTimes, fps: Fraction) -> Timeline:
    """Slot k shows the last frame whose start, rounded half up to a slot, is at most k."""
    if fps <= 0:
        raise ValueError(f"a frame rate must be above 0, got {fps}")
    rate = times.time_base * fps
    # floor(start * rate + 1/2) in integers: floats would round halves inconsistently.
    twice = 2 * rate.numerator * times.starts + rate.denominator
    arrivals = twice // (2 * rate.denominator)
    length = max(1, round_half_up(times.end * rate))
    slots = np.arange(length)
    numbers = np.searchsorted(arrivals, slots, side="right") - 1
    return Timeline(1 / fps, numbers.astype(np.int32), slots.astype(np.int64), length)


def _extend(shown: Timeline, end: int, loop: str) -> Timeline:
    """Continue until `end` or slightly later; each frame keeps its first duration."""
    stays = np.diff(shown.starts, append=shown.end)
    order = np.arange(len(shown))
    if loop == "to_and_fro":
        cycle = np.concatenate([order, order[::-1]])
    elif loop == "repeat":
        cycle = order
    else:
        missing = ceil((end - shown.end) / int(stays[-1]))
        cycle = np.concatenate([order, np.repeat(order[-1:], missing)])
    times_round = 1 if loop == "hold" else ceil(end / int(stays[cycle].sum()))
    entries = np.tile(cycle, times_round)
    stops = np.cumsum(stays[entries])
    starts = stops - stays[entries]
    return Timeline(shown.time_base, shown.numbers[entries], starts, int(stops[-1]))


def _cut(shown: Timeline, end: int) -> Timeline:
    """The entries whose midpoint is before `end`, in full; at least one."""
    stops = np.append(shown.starts[1:], shown.end)
    length = max(1, int(np.count_nonzero(shown.starts + stops <= 2 * end)))
    return Timeline(
        shown.time_base, shown.numbers[:length], shown.starts[:length], int(stops[length - 1])
    )
