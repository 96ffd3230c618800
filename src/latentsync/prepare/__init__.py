"""Raw files to clips: stages say what is done, executors where."""

from latentsync.prepare.clips import Recipe, prepare_clips
from latentsync.prepare.executors import LocalExecutor, SerialExecutor
from latentsync.prepare.latents import encode_latents
from latentsync.prepare.stage import Dropped, Outcome
from latentsync.prepare.states import encode_audio

__all__ = [
    "Dropped",
    "LocalExecutor",
    "Outcome",
    "Recipe",
    "SerialExecutor",
    "encode_audio",
    "encode_latents",
    "prepare_clips",
]
