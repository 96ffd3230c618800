"""Official weight files <-> our networks: tables of keys, strict both ways.

A file says by its tensors what it is; what no tensor says (heads, strides) stands in the tables.
"""

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.media.files import publish
from latentsync.models.audio_encoder import WhisperAudioEncoder
from latentsync.models.syncnet import Factor, StableSyncNet, TowerConfig
from latentsync.models.unet import UNet

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
Net = TypeVar("Net", bound=nn.Module)

# Parts of official keys => ours, to be replaced in this order; only in motion modules. Both
# attentions of an official motion block carry the same table of positions, ours have one.
MOTION_KEYS = {
    ".temporal_transformer.": ".",
    ".attention_blocks.0.pos_encoder.": ".pos_embed.",
    ".attention_blocks.1.pos_encoder.": ".pos_embed.",
    ".attention_blocks.0.": ".attn1.",
    ".attention_blocks.1.": ".attn2.",
    ".norms.0.": ".norm1.",
    ".norms.1.": ".norm2.",
    ".ff_norm.": ".norm3.",
}

MID_AUDIO_KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"

# What the files of version 1.0 call the attention to audio.
UNET_1_0_KEYS = {".audio_cross_attn.norm.": ".norm2.", ".audio_cross_attn.attn.": ".attn2."}

WHISPER_KEYS = {
    "encoder.": "",
    "blocks.": "layers.",
    ".attn.query.": ".self_attn.q_proj.",
    ".attn.key.": ".self_attn.k_proj.",
    ".attn.value.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.out_proj.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    ".mlp_ln.": ".final_layer_norm.",
    "ln_post.": "layer_norm.",
    "positional_embedding": "embed_positions.weight",
}


class KnownSyncNet(TypedDict):
    """What the tensors of an official SyncNet do not say."""

    num_frames: int
    resolution: int
    lower_half: bool
    audio: Sequence[Factor]
    visual: Sequence[Factor]


# Width of the visual tower's input => the rest of it.
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


def load_official_unet(path: Path | str) -> UNet:
    """The UNet of an official file of version 1.0, 1.5 or 1.6; its shape is read off the tensors.

    The number of heads (8) and of norm groups (32) is that of every published UNet.
    """
    state = {unet_key(key): value for key, value in read_state(path).items()}
    require(state, path, "UNet", "conv_in.weight", MID_AUDIO_KEY)
    config = unet_config(state)
    logger.info("%s: a UNet with %s", path, config)
    return load_strictly(UNet(**config), state, path)


def export_official_unet(unet: UNet, path: Path | str) -> None:
    """Write a file that the official code loads."""
    if unet.config.audio_projection is not None:
        raise ValueError(
            "official code has no audio projection: a UNet with "
            f"audio_projection={unet.config.audio_projection} cannot be exported to {path}"
        )
    state: State = {}
    for key, value in unet.state_dict().items():
        state |= dict.fromkeys(official_unet_keys(key), value.contiguous())
    write({"global_step": 0, "state_dict": state}, path)


def load_official_syncnet(
    path: Path | str, *, config: Mapping[str, object] | None = None
) -> StableSyncNet:
    """The StableSyncNet of an official file; one of another shape needs its config."""
    state = read_state(path)
    require(state, path, "SyncNet", "visual_encoder.conv_in.weight", "audio_encoder.conv_in.weight")
    config = syncnet_config(state, path) if config is None else config
    logger.info("%s: a SyncNet with %s", path, config)
    return load_strictly(StableSyncNet(**config), state, path)


def export_official_syncnet(net: StableSyncNet, path: Path | str) -> None:
    """Write a file that the official code loads, also to train on."""
    lists: dict[str, list[float]] = {
        f"{split}_{name}_list": [] for split in ("train", "val") for name in ("step", "loss")
    }
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    write({"state_dict": state, "global_step": 0, **lists}, path)


def load_official_whisper(path: Path | str) -> WhisperAudioEncoder:
    """The encoder of an OpenAI Whisper file of any size."""
    content = read(path)
    if not {"dims", "model_state_dict"} <= set(content):
        raise ValueError(
            f"{path} is no OpenAI Whisper file (such as tiny.pt): it holds {describe(content)}"
        )
    dims = cast(dict[str, int], content["dims"])
    width = dims["n_audio_state"]
    config = WhisperConfig(
        d_model=width,
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * width,
        num_mel_bins=dims["n_mels"],
        max_source_positions=dims["n_audio_ctx"],
    )
    state = {
        replace_all(key, WHISPER_KEYS): value.float()
        for key, value in cast(State, content["model_state_dict"]).items()
        if key.startswith("encoder.")
    }
    return WhisperAudioEncoder(load_strictly(WhisperEncoder(config), state, path))


def unet_key(key: str) -> str:
    """Our name of an official tensor."""
    key = replace_all(key, UNET_1_0_KEYS)
    return replace_all(key, MOTION_KEYS) if ".motion_modules." in key else key


def official_unet_keys(key: str) -> list[str]:
    """The official names of one of our tensors: two for a table of positions, else one."""
    before, found, within = key.partition(".motion_modules.")
    if not found:
        return [key]
    index, rest = within.split(".", 1)
    stem = f"{before}{found}{index}.temporal_transformer."
    renamed = [
        stem + rest.replace(ours, official)
        for official, ours in MOTION_KEYS.items()
        if len(ours) > 1 and ours in rest
    ]
    return renamed or [stem + rest]


def unet_config(state: Mapping[str, Tensor]) -> dict[str, object]:
    """What the tensors of a UNet, under our names, say about its shape."""
    levels = range(len({key.split(".")[1] for key in state if key.startswith("down_blocks.")}))
    motion_levels = {key.split(".")[0] for key in state if ".motion_modules." in key}
    tables = [value.shape[1] for key, value in state.items() if key.endswith(".pe")]
    return {
        "in_channels": state["conv_in.weight"].shape[1],
        "out_channels": state["conv_out.weight"].shape[0],
        "block_out_channels": [
            state[f"down_blocks.{level}.resnets.0.conv2.weight"].shape[0] for level in levels
        ],
        "attention_levels": [
            f"down_blocks.{level}.attentions.0.norm.weight" in state for level in levels
        ],
        "layers_per_block": sum(
            key.startswith("down_blocks.0.resnets.") and key.endswith(".conv1.weight")
            for key in state
        ),
        "cross_attention_dim": state[MID_AUDIO_KEY].shape[1],
        "motion": (
            "all" if "down_blocks" in motion_levels else "decoder" if motion_levels else "none"
        ),
        **({"motion_max_seq_length": tables[0]} if tables else {}),
    }


def syncnet_config(state: Mapping[str, Tensor], path: Path | str) -> dict[str, object]:
    """What the tensors of an official SyncNet, with the table of known ones, say about it."""
    width = state["visual_encoder.conv_in.weight"].shape[1]
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
    """The shape of one tower: attention stands between the levels in the same list."""
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


def read_state(path: Path | str) -> State:
    """The tensors of a weight file in float32, bare or under `state_dict`."""
    content = read(path)
    state = cast(State, content.get("state_dict", content))
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict but {describe(content)}")
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }


def read(path: Path | str) -> Mapping[str, object]:
    """What a `.safetensors` file or a pickle without code holds."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is cut short, is no weight file, or holds code ({reason}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__} where a dict of tensors should be"
        )
    return content


def require(state: Mapping[str, Tensor], path: Path | str, kind: str, *keys: str) -> None:
    """Refuse a state that belongs to another kind of network."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"{path} is no official {kind}: it has no {missing[0]}; it holds {describe(state)}"
        )


def describe(content: Mapping[str, object]) -> str:
    """The first keys of a file and how many there are, for messages."""
    return f"{len(content)} entries ({', '.join(list(content)[:3])}, ...)"


def load_strictly(net: Net, state: Mapping[str, Tensor], path: Path | str) -> Net:
    """Load a state into a network, in eval mode; else say which tensors do not fit, and how."""
    own = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [
        f"{key}: {given.get(key, 'nothing')} in the file, {own.get(key, 'nothing')} here"
        for key in sorted(own.keys() | given.keys())
        if own.get(key) != given.get(key)
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors of {path} do not fit a {type(net).__name__}: "
            + "; ".join(wrong[:5])
        )
    net.load_state_dict(state, strict=True)
    return net.eval()


def write(content: dict[str, object], path: Path | str) -> None:
    """Save as torch does; the file appears when it is whole."""
    with publish(Path(path)) as partial:
        torch.save(content, partial)


def replace_all(key: str, parts: Mapping[str, str]) -> str:
    """Replace every part found in a key, in order."""
    for official, ours in parts.items():
        key = key.replace(official, ours)
    return key
