"""Identify a weight file or folder: which network, which version, how large."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import cast

from torch import Tensor

from latentsync.config_files import read_json
from latentsync.models.model_config import FORMAT_VERSION
from latentsync.weights.files import LIGHTNING_KEY, State, kind_of, read, replace_all
from latentsync.weights.syncnet import syncnet_config
from latentsync.weights.unet import UNET_1_0_KEYS, unet_config
from latentsync.weights.vae import OLD_ATTENTION_KEYS, vae_config

# Suffixes of tensors without gradients: position tables and running statistics.
BUFFERS = (
    ".pe", "encoder.positional_embedding", "num_batches_tracked", "running_mean", "running_var",
)  # fmt: skip


def inspect(path: Path | str) -> dict[str, object]:
    """The properties of a file or folder, in display order.

    Always has `kind`; with tensors also their number, `parameters` (without position tables and
    running statistics) and `precision`; for known networks `version`, `resolution` and what else of
    the config the tensors show.
    """
    path = Path(path)
    if path.is_dir():
        return inspect_folder(path)
    content = read(path)
    kind = kind_of(content)
    state = cast(State, content.get("state_dict", content.get("model_state_dict", content)))
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {
        "kind": kind,
        **details(kind, tensors, content, path),
        "tensors": len(tensors),
        "parameters": num_parameters(tensors),
        "precision": ", ".join(sorted({str(v.dtype).split(".")[1] for v in tensors.values()})),
        "bytes": path.stat().st_size,
    }


def details(
    kind: str, state: State, content: Mapping[str, object], path: Path
) -> dict[str, object]:
    """What is known about a kind beyond the sizes of its tensors."""
    if LIGHTNING_KEY in content:
        return {"steps": content.get("global_step")}
    if kind.startswith("UNet"):
        config = unet_config({replace_all(k, UNET_1_0_KEYS): v for k, v in state.items()})
        if config["in_channels"] != 13:
            return {"version": "none of LatentSync's: it takes no mask and no reference", **config}
        if kind != "UNet":
            return {"version": "1.0", "resolution": 256, **config}
        candidates = "1.5 or 1.6, which no tensor tells apart", "256 for 1.5, 512 for 1.6"
        return {"version": candidates[0], "resolution": candidates[1], **config}
    if kind == "SyncNet":
        return syncnet_config(state, path)
    if kind == "VAE":
        return vae_config({replace_all(k, OLD_ATTENTION_KEYS): v for k, v in state.items()})
    return {"dims": content["dims"]} if "dims" in content else {}


def num_parameters(state: Mapping[str, Tensor]) -> int:
    """The number of trainable values."""
    return sum(prod(value.shape) for key, value in state.items() if not key.endswith(BUFFERS))


def inspect_folder(folder: Path) -> dict[str, object]:
    """The kind and config in a folder's config.json."""
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise FileNotFoundError(f"{folder} is no folder of a model or a network: no config.json")
    config = read_json(config_path, unchecked=("training",))
    if config.get("format_version") == FORMAT_VERSION:
        return {"kind": "model folder", **config}
    return {"kind": f"folder of {config.get('_class_name', 'an unknown network')}", **config}
