"""Official StableSyncNet files <-> our StableSyncNet; names are the same on both sides."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

from torch import Tensor

from latentsync.models.syncnet import RECORDED, Factor, StableSyncNet, TowerConfig
from latentsync.weights.files import (
    VISUAL_INPUT_KEY,
    build,
    infer,
    read,
    read_state,
    require,
    write,
)

# Key next to the tensors in files we export: the kind of faces the network was trained on.
FACES_KEY = "trained_on"


class KnownSyncNet(TypedDict):
    """What the tensors of an official SyncNet do not show."""

    num_frames: int
    resolution: int
    lower_half: bool
    audio: Sequence[Factor]
    visual: Sequence[Factor]


# Input channels of the visual tower => the rest of its config.
SYNCNETS: dict[int, KnownSyncNet] = {
    48: {
        "num_frames": 16,
        "resolution": 256,
        "lower_half": True,
        "audio": [[2, 1], 2, 2, 1, 2, 2, [2, 3]],
        "visual": [[1, 2], 2, 2, 2, 2, 2, 2, 2],
    },
    64: {
        "num_frames": 16,
        "resolution": 32,
        "lower_half": False,
        "audio": [[2, 1], 2, 2, 2, 2, [2, 3]],
        "visual": [2, 2, 2, 1, 2, 2],
    },
    75: {
        "num_frames": 25,
        "resolution": 256,
        "lower_half": True,
        "audio": [2, 2, 2, 2, 2, 2],
        "visual": [[1, 2], 2, 2, 2, 2, 2, 2, 2],
    },
}


def load_official_syncnet(
    path: Path | str, *, config: Mapping[str, object] | None = None
) -> StableSyncNet:
    """The StableSyncNet of an official file; one of unknown shape needs its config.

    Channels and attention are inferred from the tensors, frames and strides from the visual input
    channels: 48 is 16 RGB frames, 64 is 16 frames of latents, 75 is 25 RGB frames. The published
    ones were trained on recorded faces (VoxCeleb2 and HDTF); our files store this.
    """
    state = read_state(path)
    require(state, path, "SyncNet", VISUAL_INPUT_KEY, "audio_encoder.conv_in.weight")
    chosen = dict(config or infer(partial(syncnet_config, path=path), state, path))
    chosen.setdefault(FACES_KEY, read(path).get(FACES_KEY, RECORDED))
    return build(lambda: StableSyncNet(**chosen), state, path)


def export_official_syncnet(net: StableSyncNet, path: Path | str) -> None:
    """Write a file that the official code can load, also to resume training."""
    lists: dict[str, list[float]] = {
        f"{split}_{name}_list": [] for split in ("train", "val") for name in ("step", "loss")
    }
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    faces = {FACES_KEY: net.config.trained_on}
    write({"state_dict": state, "global_step": 0, **lists, **faces}, path)


def syncnet_config(state: Mapping[str, Tensor], path: Path | str) -> dict[str, object]:
    """The config of an official SyncNet from its tensors and the table of known ones."""
    width = state[VISUAL_INPUT_KEY].shape[1]
    if width not in SYNCNETS:
        raise ValueError(
            f"{path}: no official SyncNet reads {width} channels of video (known: "
            f"{sorted(SYNCNETS)}); give its config"
        )
    known = SYNCNETS[width]
    return {
        "audio_encoder": tower_config(state, "audio_encoder.", known["audio"]),
        "visual_encoder": tower_config(state, "visual_encoder.", known["visual"]),
        **{name: known[name] for name in ("num_frames", "resolution", "lower_half")},
    }


def tower_config(
    state: Mapping[str, Tensor], prefix: str, factors: Sequence[Factor]
) -> TowerConfig:
    """The config of one tower; attention blocks are in the same list as the levels."""
    stem = f"{prefix}down_blocks."
    indices = {int(key.removeprefix(stem).split(".")[0]) for key in state if stem in key}
    channels: list[int] = []
    attends: list[int] = []
    for index in sorted(indices):
        if f"{stem}{index}.conv1.weight" in state:
            channels.append(state[f"{stem}{index}.conv1.weight"].shape[0])
            attends.append(0)
        else:
            attends[-1] = 1
    return {
        "in_channels": state[f"{prefix}conv_in.weight"].shape[1],
        "block_out_channels": channels,
        "downsample_factors": factors,
        "attn_blocks": attends,
        "dropout": 0.0,
    }
