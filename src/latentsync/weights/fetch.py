"""Published files from the Hugging Face Hub, or from a folder the user put them in."""

import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache

from latentsync.files import cache_root

logger = logging.getLogger(__name__)

HUB_PREFIX = "hf:"
HUB = "https://huggingface.co"
VAE_REPO = "stabilityai/sd-vae-ft-mse"
VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
UNET_FILE, WHISPER_FILE = "latentsync_unet.pt", "whisper/tiny.pt"


@dataclass(frozen=True, slots=True)
class Published:
    """Paths of the files of a published model."""

    unet: Path
    whisper: Path
    vae: Path


def fetch(source: str, *, cache: Path | None = None, endpoint: str | None = None) -> Published:
    """The files of `hf:owner/name`, downloaded to the hub's standard cache if not yet there.

    Interrupted downloads are resumed. Files the user put into the folder named in the error message
    take precedence over downloads. FileNotFoundError lists the missing files and where they belong.
    """
    if not source.startswith(HUB_PREFIX) or source.count("/") != 1:
        raise ValueError(f"{source!r} is no hf:owner/name, such as hf:ByteDance/LatentSync-1.6")
    repo = source.removeprefix(HUB_PREFIX)
    by_hand = (cache or cache_root()) / "published" / repo
    wanted = {
        by_hand / UNET_FILE: (repo, UNET_FILE),
        by_hand / WHISPER_FILE: (repo, WHISPER_FILE),
        **{by_hand / "vae" / name: (VAE_REPO, name) for name in VAE_FILES},
    }
    found: dict[Path, Path] = {}
    for place, (owner, name) in wanted.items():
        if place.is_file():
            found[place] = place
            continue
        try:
            found[place] = Path(hf_hub_download(owner, name, endpoint=endpoint))
        except OSError as error:
            raise FileNotFoundError(_remedy(wanted, found, error)) from error
        logger.info("%s: %s", name, found[place])
    return Published(
        unet=found[by_hand / UNET_FILE],
        whisper=found[by_hand / WHISPER_FILE],
        vae=found[by_hand / "vae" / VAE_FILES[-1]],
    )


def in_hub_cache(repo: str, name: str) -> Path | None:
    """The path of a file in the hub's standard cache, or None; does not use the network."""
    path = try_to_load_from_cache(repo, name)
    return Path(path) if isinstance(path, str) else None


def _remedy(wanted: dict[Path, tuple[str, str]], found: dict[Path, Path], error: OSError) -> str:
    missing = [
        f"{place} (from {HUB}/{repo}/resolve/main/{name})"
        for place, (repo, name) in wanted.items()
        if place not in found and not place.is_file()
    ]
    reason = " ".join(str(error).split())[:200]
    return (
        f"the Hugging Face Hub could not be asked ({type(error).__name__}: {reason}); with a "
        "network, say it again; without one, put these files there by hand: " + "; ".join(missing)
    )
