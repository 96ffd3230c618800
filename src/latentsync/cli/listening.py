"""Which audio encoder a training listens to, known before its networks are built."""

import shlex
from pathlib import Path

from omegaconf import DictConfig

from latentsync.cli.names import build
from latentsync.data import AudioStates
from latentsync.models import encoder_name
from latentsync.models.audio.encoders import MelAudioEncoder, WhisperAudioEncoder
from latentsync.models.model_config import read_config
from latentsync.models.serialization import load_audio_encoder


def listens_to(task: DictConfig) -> AudioStates | None:
    """The states that the task's model takes; None for tasks without one, as SyncNet's.

    Only the audio encoder is built, which takes a moment where the whole model takes minutes.
    """
    model = task.get("model")
    if model is None:
        return None
    if "audio_encoder" in model:
        encoder = build(model.audio_encoder)
        folder = model.audio_encoder.get("folder")
    elif "folder" in model:
        folder = Path(model.folder)
        encoder = load_audio_encoder(read_config(folder)["audio_encoder"], folder)
        folder = folder / "audio_encoder"
    else:
        return None
    if isinstance(encoder, MelAudioEncoder):
        return AudioStates(encoder_name(encoder), "audio_encoder=mel")
    if isinstance(encoder, WhisperAudioEncoder):
        words = f"audio_encoder=whisper audio_encoder.folder={shlex.quote(str(folder))}"
        return AudioStates(encoder_name(encoder), words)
    target = model.audio_encoder._target_ if "audio_encoder" in model else "..."
    return AudioStates(encoder_name(encoder), f"audio_encoder._target_={target}")
