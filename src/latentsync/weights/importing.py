"""Published files of single networks => the folders that the commands expect."""

import logging
from collections.abc import Callable
from pathlib import Path

from latentsync.files import publish
from latentsync.models.serialization import save_network
from latentsync.weights.files import describe, kind_of, raw_state, read
from latentsync.weights.syncnet import load_official_syncnet
from latentsync.weights.vae import load_official_vae, vae_path
from latentsync.weights.whisper import load_official_whisper

logger = logging.getLogger(__name__)

SaveTo = Callable[[Path, Path], None]

# Kind of file => how to write its folder, and the option that takes it.
FOLDERS: dict[str, tuple[SaveTo, str]] = {
    "SyncNet": (lambda path, out: save_network(load_official_syncnet(path), out), "syncnet="),
    "VAE": (lambda path, out: save_network(load_official_vae(path), out), "vae="),
    "Whisper": (lambda path, out: load_official_whisper(path).save(out), "whisper="),
}
# Kinds that are used in another way.
NO_FOLDER = {
    "SyncNet v2": "it is read as it is, by latentsync.weights.load_official_syncnet_v2",
    "S3FD": "it is read as it is, by latentsync.weights.load_official_s3fd",
    "LR-ASD": "it is read as it is, by latentsync.weights.load_official_lr_asd",
    "Wav2Lip SyncNet": "no part of this program uses one",
    "Whisper in the layout of transformers": (
        "give the folder it lies in, with its config.json, as whisper="
    ),
    "Stable Diffusion checkpoint": (
        "give the folder of the same model as diffusers has it, as init_sd= to train from"
    ),
}


def is_unet(path: Path) -> bool:
    """Whether a file holds a UNet, which needs other files to become a model."""
    return path.is_file() and kind_of(read(path)).startswith("UNet")


def import_network(source: Path | str, out: Path | str) -> Path:
    """Write the folder of a published SyncNet, VAE or Whisper; returns it.

    ValueError for kinds that have no folder, with what to do instead.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already: choose another name or remove it")
    path = vae_path(source)
    content = read(path)
    kind = kind_of(content)
    if kind not in FOLDERS:
        if kind not in NO_FOLDER:
            raw_state(path)  # raises for a LoRA or a checkpoint
        what = kind if kind in NO_FOLDER else describe(content)
        remedy = NO_FOLDER.get(kind, f"folders are made of a UNet, {', '.join(FOLDERS)}")
        raise ValueError(f"no folder is made of {path}, which holds a {what}: {remedy}")
    save, option = FOLDERS[kind]
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out) as partial:
        save(path, partial)
    logger.info("%s: a %s, to be given as %s%s", out, kind, option, out)
    return out
