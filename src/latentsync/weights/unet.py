"""Official UNet files <-> our UNet, and a new UNet from Stable Diffusion 1.5.

The shape is inferred from the tensors, except for the numbers of heads (8) and norm groups (32),
which are those of every published UNet.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentsync.models.unet import UNet
from latentsync.weights.files import (
    MID_AUDIO_KEY,
    OLD_MID_AUDIO_KEY,
    State,
    check_fit,
    infer,
    load_strictly,
    read_state,
    replace_all,
    require,
    write,
)

logger = logging.getLogger(__name__)

# Parts of official keys => ours, replaced in this order, in motion modules only. Both attentions of
# an official motion block store the same position table; ours store one.
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

# Names of the audio attention in version 1.0.
UNET_1_0_KEYS = {".audio_cross_attn.norm.": ".norm2.", ".audio_cross_attn.attn.": ".attn2."}

# Layers that have other shapes in Stable Diffusion's UNet: its input and cross-attention.
NOT_IN_SD = ("conv_in.", ".attn2.to_k.", ".attn2.to_v.")

DIFFUSERS_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_official_unet(path: Path | str, *, version: str | None = None) -> UNet:
    """The UNet of an official file of version 1.0, 1.5 or 1.6; its shape is inferred.

    ValueError if the tensor names belong to another `version` than the given one.
    """
    official = read_state(path)
    is_old = OLD_MID_AUDIO_KEY in official
    if version is not None and is_old != (version == "1.0"):
        raise ValueError(
            f"{path} names its tensors as version {'1.0' if is_old else '1.5 and 1.6'} did, but "
            f"version {version} was asked for: give the file's own version"
        )
    if is_old:
        logger.info("%s: names of version 1.0, translated", path)
    official = {replace_all(key, UNET_1_0_KEYS): value for key, value in official.items()}
    require(official, path, "UNet", "conv_in.weight", "conv_out.weight", MID_AUDIO_KEY)
    config = infer(unet_config, official, path)
    in_channels, out_channels = (
        official["conv_in.weight"].shape[1],
        official["conv_out.weight"].shape[0],
    )
    if in_channels != 3 * out_channels + 1:
        raise ValueError(
            f"{path} is a UNet that reads {in_channels} channels, LatentSync's read noisy, masked "
            f"and reference latents and a mask ({3 * out_channels + 1}); to start from one of "
            "Stable Diffusion, train with init_sd=FOLDER (unet_from_sd in Python)"
        )
    with torch.device("meta"):
        net = UNet(**config)
    # Compared by the file's names, where position tables occur twice.
    expected = {
        name: value for key, value in net.state_dict().items() for name in official_unet_keys(key)
    }
    check_fit(expected, official, path, "UNet")
    return load_strictly(net, {unet_key(key): value for key, value in official.items()}, path)


def export_official_unet(unet: UNet, path: Path | str) -> None:
    """Write a file that the official code can load."""
    write({"global_step": 0, "state_dict": official_unet_state(unet, path)}, path)


def official_unet_state(unet: UNet, path: Path | str) -> State:
    """The tensors of a UNet by official names; `path` is for the error message."""
    if unet.config.audio_projection is not None:
        raise ValueError(
            "official code has no audio projection: a UNet with "
            f"audio_projection={unet.config.audio_projection} cannot be exported to {path}"
        )
    state: State = {}
    for key, value in unet.state_dict().items():
        state |= dict.fromkeys(official_unet_keys(key), value.contiguous())
    return state


def unet_from_sd(folder: Path | str, **config: object) -> UNet:
    """A new UNet of the given config, initialised from Stable Diffusion 1.5 where possible.

    `folder` is a diffusers folder, of the pipeline or of its UNet. Layers it lacks (`conv_in`, keys
    and values of the audio attention, motion modules) stay randomly initialised; ValueError if
    anything else does not fit.
    """
    unet = UNet(**config)
    take_from_sd(unet, folder)
    return unet


def take_from_sd(unet: UNet, folder: Path | str) -> None:
    """Initialise a new UNet, in place, from Stable Diffusion 1.5 where possible."""
    path = sd_unet_path(Path(folder))
    state = read_state(path)
    require(state, path, "UNet of Stable Diffusion", "conv_in.weight", MID_AUDIO_KEY)
    taken = {key: value for key, value in state.items() if not any(n in key for n in NOT_IN_SD)}
    own = unet.state_dict()
    initialized = (*NOT_IN_SD, ".motion_modules.", "project_audio.")
    wanted = {
        key: value for key, value in own.items() if not any(part in key for part in initialized)
    }
    check_fit(wanted, taken, path, "UNet")
    unet.load_state_dict({**own, **taken}, strict=True)
    kept = [part.strip(".") for part in initialized if any(part in key for key in own)]
    logger.info(
        "%s: %d of %d tensors taken; drawn anew: %s", path, len(taken), len(own), ", ".join(kept)
    )


def sd_unet_path(folder: Path) -> Path:
    """The weight file of the UNet in a diffusers folder, or the given file."""
    if folder.is_file():
        return folder
    candidates = [place / name for place in (folder / "unet", folder) for name in DIFFUSERS_NAMES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no UNet of Stable Diffusion in {folder}: put unet/config.json and "
            f"unet/{DIFFUSERS_NAMES[0]} of a Stable Diffusion 1.5 on the Hugging Face Hub there"
        )
    return found


def unet_key(key: str) -> str:
    """Our name of an official tensor."""
    key = replace_all(key, UNET_1_0_KEYS)
    return replace_all(key, MOTION_KEYS) if ".motion_modules." in key else key


def official_unet_keys(key: str) -> list[str]:
    """The official names of one of our tensors: two for position tables, else one."""
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
    """The config of a UNet as far as its tensors (under our names) show it."""
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
