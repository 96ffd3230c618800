"""A preset of `infer.py preset=` as the page uses it."""

from dataclasses import dataclass

from latentsync.diffusion.sampler import Sampler
from latentsync.faces.detectors.base import FaceDetector
from latentsync.pipeline import PROFILES, Encoding, Profile

FIRST_PRESET = "balanced"


@dataclass(frozen=True, slots=True)
class Preset:
    """Values of a preset; `detector`: its own one, or None for the page's."""

    name: str
    sampler: Sampler
    overlap: int
    measure: bool
    encoding: Encoding
    detector: FaceDetector | None = None
    profile: Profile = PROFILES["own"]
