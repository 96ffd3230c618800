"""What a preset of `infer.py preset=` is to the page."""

from dataclasses import dataclass

from latentsync.diffusion.sampler import Sampler
from latentsync.faces.detectors.base import FaceDetector
from latentsync.pipeline import PROFILES, Encoding, Profile

FIRST_PRESET = "balanced"


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset's values; `detector`: of its own, where it has one."""

    name: str
    sampler: Sampler
    overlap: int
    measure: bool
    encoding: Encoding
    detector: FaceDetector | None = None
    profile: Profile = PROFILES["own"]
