"""Networks, and the model folders that hold them."""

from latentsync.media.tokens import frame_tokens
from latentsync.models.audio.encoders import (
    AudioEncoder,
    CentredMelAudioEncoder,
    MelAudioEncoder,
    TokenStream,
    num_official_frames,
)
from latentsync.models.audio.hubert import HubertAudioEncoder
from latentsync.models.audio.stream import StateStream
from latentsync.models.audio.whisper import WhisperAudioEncoder
from latentsync.models.codec import LatentCodec, PreviewCodec
from latentsync.models.deepcache import DeepCache
from latentsync.models.denoised import Denoised
from latentsync.models.frozen import Frozen
from latentsync.models.kinds import register_audio_encoder, registered_audio_encoder
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.precision import best_dtype, make_ready
from latentsync.models.serialization import load_network, save_network
from latentsync.models.syncnet import (
    StableSyncNet,
    latent_sync_input,
    load_syncnet,
    sync_input,
)
from latentsync.models.unet import UNet

__all__ = [
    "AudioEncoder",
    "CentredMelAudioEncoder",
    "DeepCache",
    "Denoised",
    "Frozen",
    "HubertAudioEncoder",
    "LatentCodec",
    "LipSyncModel",
    "MelAudioEncoder",
    "ModelFormat",
    "MouthReader",
    "PreviewCodec",
    "StableSyncNet",
    "StateStream",
    "TokenStream",
    "UNet",
    "WhisperAudioEncoder",
    "best_dtype",
    "frame_tokens",
    "latent_sync_input",
    "load_network",
    "load_syncnet",
    "make_ready",
    "num_official_frames",
    "register_audio_encoder",
    "registered_audio_encoder",
    "save_network",
    "sync_input",
]
