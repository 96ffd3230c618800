"""Networks to and from folders, strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import SchedulerMixin
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from latentsync.files import publish
from latentsync.models.audio_encoder import AudioEncoder, MelAudioEncoder, WhisperAudioEncoder

Network = TypeVar("Network", bound=ModelMixin)

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def save_network(net: ModelMixin, folder: Path | str, dtype: torch.dtype | None = None) -> None:
    """Write the config and the tensors of a network, cast to `dtype` if one is given."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    net.save_config(folder)
    state = {
        name: value.detach().to("cpu", dtype or value.dtype).contiguous()
        for name, value in net.state_dict().items()
    }
    with publish(folder / WEIGHTS_NAME) as path:
        save_file(state, path, metadata={"format": "pt"})


def load_network(kind: type[Network], folder: Path | str) -> Network:
    """The network of a folder in float32, in eval mode; every tensor must be there and fit."""
    folder = Path(folder)
    for name in ("config.json", WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {kind.__name__} in {folder}: it has no {name}")
    net = kind.from_config(json.loads((folder / "config.json").read_text()))
    try:
        state = load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged or cut short: {error}") from error
    try:
        net.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except RuntimeError as error:
        raise ValueError(f"the tensors of {folder} do not fit its config.json: {error}") from error
    return net.eval()


def schedule_of(scheduler: SchedulerMixin) -> dict[str, object]:
    """The plain values of a schedule's config, without what belongs to one library version."""
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


def save_audio_encoder(encoder: AudioEncoder, folder: Path) -> dict[str, str]:
    """Write an audio encoder's weights if it has any; returns what the model's config says."""
    if isinstance(encoder, MelAudioEncoder):
        return {"name": "mel"}
    if isinstance(encoder, WhisperAudioEncoder):
        encoder.net.net.save_pretrained(folder / "audio_encoder")
        return {"name": "whisper"}
    raise ValueError(f"no model folder can hold a {type(encoder).__name__}")


def load_audio_encoder(config: Mapping[str, str], folder: Path) -> AudioEncoder:
    """The audio encoder that `save_audio_encoder` described."""
    if config["name"] == "mel":
        return MelAudioEncoder()
    if config["name"] == "whisper":
        return WhisperAudioEncoder.from_pretrained(folder / "audio_encoder")
    raise ValueError(f"{folder} has an unknown audio encoder {config['name']!r}")
