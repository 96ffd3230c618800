"""Clips on disk to batches."""

from latentsync.data.clips import (
    AudioStates,
    Clip,
    attach_latents,
    attach_states,
    read_manifest,
    write_manifest,
)
from latentsync.data.dataset import ClipDataset

__all__ = [
    "AudioStates",
    "Clip",
    "ClipDataset",
    "attach_latents",
    "attach_states",
    "read_manifest",
    "write_manifest",
]
