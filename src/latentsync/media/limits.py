"""Limits on input files: a few bytes can declare days of silence or pictures of gigabytes."""

from fractions import Fraction
from pathlib import Path

from av.audio.codeccontext import AudioCodecContext

from latentsync.files import FilePart

MAX_PIXELS = 2**26  # 8192 x 8192
MAX_FPS = 1000
MAX_PICTURE_SECONDS = 600
MAX_SILENT_SECONDS = 2 * 3600
USUAL_CHANNELS = frozenset((*range(1, 9), 16, 24))  # for which libav has default layouts
NO_ARRANGEMENT = "channels"  # libav's name of layouts that are only a number
MIN_SAMPLE_RATE = 100  # a megabyte at 1 Hz would last for days
MAX_SAMPLE_RATE = 6_144_000  # eight times the highest in use; filter length grows with the ratio


def check_picture(path: Path | FilePart, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{path} has pictures of {width}x{height}: the most are {MAX_PIXELS} pixels "
            "(8192x8192); scale it down"
        )


def check_stay(path: Path, start: Fraction, end: Fraction) -> None:
    """ValueError if a picture is shown for too long."""
    if end - start > MAX_PICTURE_SECONDS:
        raise ValueError(
            f"{path} shows one picture from {float(start):.2f} s to {float(end):.2f} s: the most "
            f"are {MAX_PICTURE_SECONDS} s; cut it there, or give its pictures new times"
        )


def check_rate(num_frames: int, seconds: Fraction) -> None:
    if num_frames > MAX_FPS * seconds:
        raise ValueError(
            f"the video shows {num_frames} pictures in {float(seconds):.3g} s: the most are "
            f"{MAX_FPS} a second; give its pictures new times"
        )


def check_sound(path: Path, codec: AudioCodecContext) -> None:
    if codec.channels not in USUAL_CHANNELS and codec.layout.name.endswith(NO_ARRANGEMENT):
        raise ValueError(
            f"{path} has sound of {codec.channels} channels and does not say which is where: give "
            "it as stereo or mono"
        )
    rate = codec.sample_rate
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{path} says it has {rate:,} samples a second, {MIN_SAMPLE_RATE:,} to "
            f"{MAX_SAMPLE_RATE:,} can be read: convert it to 48,000"
        )


class Silences:
    """Adds up the gaps in the audio; ValueError if they exceed the limit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = self.total = Fraction(0)

    def add(self, start: Fraction, end: Fraction) -> None:
        """Add a piece of audio; pieces may overlap."""
        self.total += max(Fraction(0), start - self.end)
        if self.total > MAX_SILENT_SECONDS:
            raise ValueError(
                f"{self.path} has no sound from {float(self.end):.2f} s to {float(start):.2f} s: "
                f"the most are {MAX_SILENT_SECONDS} s in all; cut it there, or convert it to wav"
            )
        self.end = max(self.end, end)
