"""A video and a voice => the video speaking it.

`lipsync` is the door; `engine` says how it works.
"""

from latentsync.pipeline.cache import Cache
from latentsync.pipeline.checks import check_paths
from latentsync.pipeline.draw import draw_clip, to_pixels
from latentsync.pipeline.engine import Drawing, Encoding, Timing, prepare_job
from latentsync.pipeline.outputs import page_path, report_path, sheet_path
from latentsync.pipeline.plan import Choice, Plan
from latentsync.pipeline.run import lipsync
from latentsync.pipeline.silence import SilenceGate
from latentsync.pipeline.speaker import SpeakerChoice
from latentsync.pipeline.speaker_scorers import LRASDScorer

__all__ = [
    "Cache",
    "Choice",
    "Drawing",
    "Encoding",
    "LRASDScorer",
    "Plan",
    "SilenceGate",
    "SpeakerChoice",
    "Timing",
    "check_paths",
    "draw_clip",
    "lipsync",
    "page_path",
    "prepare_job",
    "report_path",
    "sheet_path",
    "to_pixels",
]
