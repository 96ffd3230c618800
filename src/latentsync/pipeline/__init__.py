"""A video and a voice => the video lip-synced to the voice.

`lipsync` is the entry point: analyze, plan (`job`), render, report.
"""

from latentsync.media.silence import SilenceGate
from latentsync.models.speaker_scorers import LRASDScorer
from latentsync.pipeline.cache import Cache
from latentsync.pipeline.checks import Source, check_paths
from latentsync.pipeline.generation import generate_clip, to_pixels
from latentsync.pipeline.job import prepare_job
from latentsync.pipeline.lipsync import lipsync
from latentsync.pipeline.outputs import page_path, report_path, sheet_path
from latentsync.pipeline.plan import Choice, Plan
from latentsync.pipeline.request import (
    PROFILES,
    Encoding,
    Generation,
    OfficialProfile,
    Profile,
    Request,
    Session,
    Timing,
)
from latentsync.pipeline.speakers import SpeakerChoice

__all__ = [
    "PROFILES",
    "Cache",
    "Choice",
    "Encoding",
    "Generation",
    "LRASDScorer",
    "OfficialProfile",
    "Plan",
    "Profile",
    "Request",
    "Session",
    "SilenceGate",
    "Source",
    "SpeakerChoice",
    "Timing",
    "check_paths",
    "generate_clip",
    "lipsync",
    "page_path",
    "prepare_job",
    "report_path",
    "sheet_path",
    "to_pixels",
]
