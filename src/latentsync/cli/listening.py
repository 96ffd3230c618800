"""Determine the audio encoder of a training run before its networks are built."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from latentsync.cli.command import conf_dir
from latentsync.cli.names import build
from latentsync.data import AudioStates
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.models.model_config import read_config
from latentsync.models.serialization import load_audio_encoder

# Config name of encoders registered by other packages.
REGISTERED = "registered"


def listens_to(task: DictConfig) -> AudioStates | None:
    """The audio states the task's model takes; None for tasks without an encoder, such as SyncNet.

    Builds only the audio encoder, which takes a moment; the whole model would take minutes.
    """
    model = task.get("model")
    if model is None:
        return None
    if model.get("audio_encoder") is not None:
        node = model.audio_encoder
        encoder = build(node)
        values = cast(dict[str, object], OmegaConf.to_container(node, resolve=True))
        chosen = {
            name: value
            for name, value in values.items()
            if not name.startswith("_") and value is not None
        }
    elif "folder" in model:
        folder = Path(model.folder)
        encoder = load_audio_encoder(read_config(folder)["audio_encoder"], folder)
        folder = folder / "audio_encoder"
        chosen = {"folder": str(folder)} if folder.is_dir() else {}
    else:
        return None
    return AudioStates(encoder.states_name, words_for(encoder, chosen))


def words_for(encoder: AudioEncoder, chosen: Mapping[str, object]) -> str:
    """The overrides of prepare.py that select this encoder with the values `chosen` for it."""
    shipped = (conf_dir() / "audio_encoder" / f"{encoder.name}.yaml").is_file()
    group = encoder.name if shipped else REGISTERED
    values = dict(chosen) if shipped else {"name": encoder.name, **chosen}
    words = [f"audio_encoder={group}"]
    for name, value in values.items():
        text = json.dumps(value).replace(" ", "") if isinstance(value, list) else str(value)
        words.append(f"audio_encoder.{name}={shlex.quote(text)}")
    return " ".join(words)
