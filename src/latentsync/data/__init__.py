"""Clips on disk to batches."""

from typing import TYPE_CHECKING

from latentsync.lazy import names_at_first_use

if TYPE_CHECKING:
    from latentsync.data.clips import AudioStates, Clip, attach_latents, attach_states
    from latentsync.data.dataset import ClipDataset
    from latentsync.data.items import Items
    from latentsync.data.manifest import read_manifest, write_manifest
    from latentsync.data.remote import StoreCache
else:
    __getattr__ = names_at_first_use(__name__)

__all__ = [
    "AudioStates",
    "Clip",
    "ClipDataset",
    "Items",
    "StoreCache",
    "attach_latents",
    "attach_states",
    "read_manifest",
    "write_manifest",
]
