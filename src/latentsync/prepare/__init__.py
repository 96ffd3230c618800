"""Raw videos => clips: stages define the steps, executors where they run."""

from latentsync.prepare.again import adopt
from latentsync.prepare.align import Align
from latentsync.prepare.clips import Recipe, prepare_clips
from latentsync.prepare.dedupe import Dedupe
from latentsync.prepare.executors import LocalExecutor, SerialExecutor
from latentsync.prepare.features import WriteClips
from latentsync.prepare.fingerprint import Fingerprint
from latentsync.prepare.identity import MeasureIdentity
from latentsync.prepare.latents import encode_latents
from latentsync.prepare.limits import Limit, limits_of
from latentsync.prepare.part import Part
from latentsync.prepare.probe import Probe
from latentsync.prepare.quality import MeasureQuality
from latentsync.prepare.remote_output import check_apart, working_copy
from latentsync.prepare.resample import Resample
from latentsync.prepare.segment import Cut
from latentsync.prepare.shards import write_shards
from latentsync.prepare.sound import MeasureSound
from latentsync.prepare.speaker import Demands
from latentsync.prepare.speaking import MeasureSpeaking
from latentsync.prepare.split import Split
from latentsync.prepare.stage import AlignedSegment, Dropped, Outcome, Segment, Stage
from latentsync.prepare.states import encode_audio
from latentsync.prepare.summary import filter_clips
from latentsync.prepare.sync import MeasureSync

__all__ = [
    "Align",
    "AlignedSegment",
    "Cut",
    "Dedupe",
    "Demands",
    "Dropped",
    "Fingerprint",
    "Limit",
    "LocalExecutor",
    "MeasureIdentity",
    "MeasureQuality",
    "MeasureSound",
    "MeasureSpeaking",
    "MeasureSync",
    "Outcome",
    "Part",
    "Probe",
    "Recipe",
    "Resample",
    "Segment",
    "SerialExecutor",
    "Split",
    "Stage",
    "WriteClips",
    "adopt",
    "check_apart",
    "encode_audio",
    "encode_latents",
    "filter_clips",
    "limits_of",
    "prepare_clips",
    "working_copy",
    "write_shards",
]
