"""Save networks to folders and load them strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from latentsync.config_files import (
    MISUSES,
    check_types,
    defaults_of,
    made,
    misfits,
    one_line,
    read_json,
    some,
)
from latentsync.files import publish
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.models.kinds import AUDIO_ENCODERS

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
    """Load the network of a folder in float32 and eval mode; every tensor must exist and fit."""
    folder = Path(folder)
    for name in ("config.json", WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {kind.__name__} in {folder}: it has no {name}")
    config = network_config(kind, folder)
    try:
        state = load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged or cut short: {error}") from error
    # Compare shapes first: a config must not allocate memory for tensors the file does not hold.
    unfit = misfits(outline(kind, config, folder).state_dict(), state)
    if unfit:
        raise ValueError(
            f"{len(unfit)} tensors of {folder} do not fit its config.json: " + some(unfit)
        )
    net = kind.from_config(config)
    net.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    return net.eval()


def load_library_network(kind: type[Network], folder: Path | str) -> Network:
    """Load a network folder written by diffusers, under any file name and without network
    access."""
    folder = Path(folder)
    outline(kind, network_config(kind, folder), folder)
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (*MISUSES, SafetensorError) as error:
        raise ValueError(f"{folder} holds no whole {kind.__name__}: {one_line(error)}") from error


def network_config(kind: type[ModelMixin], folder: Path) -> dict[str, object]:
    """The config.json of a network, checked against the types its class accepts."""
    path = folder / "config.json"
    config = read_json(path)
    check_types(config, defaults_of(kind.__init__), path)
    return config


def outline(kind: type[Network], config: Mapping[str, object], folder: Path) -> Network:
    """A network on the meta device, for the shapes of its tensors."""
    with torch.device("meta"):
        return made(kind.from_config, config, folder / "config.json", what=kind.__name__)


def save_audio_encoder(encoder: AudioEncoder, folder: Path) -> dict[str, str]:
    """Write an audio encoder's weights, if any; returns its entry in the model's config."""
    name = AUDIO_ENCODERS.check(encoder)
    encoder.save(folder / "audio_encoder")
    return {"name": name}


def load_audio_encoder(config: Mapping[str, object], folder: Path) -> AudioEncoder:
    """Load the audio encoder of an entry made by `save_audio_encoder`."""
    kind = AUDIO_ENCODERS.find(config.get("name"), where=f"{folder} has an unknown audio encoder: ")
    return kind.load(folder / "audio_encoder")
