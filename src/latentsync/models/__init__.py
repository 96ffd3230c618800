"""Networks, and how they are held."""

from latentsync.models.audio_encoder import (
    AudioEncoder,
    MelAudioEncoder,
    WhisperAudioEncoder,
    frame_tokens,
)
from latentsync.models.codec import LatentCodec
from latentsync.models.folders import load_network, save_network
from latentsync.models.frozen import Frozen
from latentsync.models.lipsync import Denoised, LipSyncModel, ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.syncnet import StableSyncNet, load_syncnet, sync_input
from latentsync.models.unet import UNet

__all__ = [
    "AudioEncoder",
    "Denoised",
    "Frozen",
    "LatentCodec",
    "LipSyncModel",
    "MelAudioEncoder",
    "ModelFormat",
    "MouthReader",
    "StableSyncNet",
    "UNet",
    "WhisperAudioEncoder",
    "frame_tokens",
    "load_network",
    "load_syncnet",
    "save_network",
    "sync_input",
]
