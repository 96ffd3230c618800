"""Clips on disk to batches."""

from latentsync.data.clips import Clip, attach_latents, read_manifest, write_manifest
from latentsync.data.dataset import ClipDataset

__all__ = ["Clip", "ClipDataset", "attach_latents", "read_manifest", "write_manifest"]
