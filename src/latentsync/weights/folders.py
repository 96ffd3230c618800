"""Published files => self-describing model folders; our folders => official files.

Properties that tensors do not show (resolution, aligner, mask, audio window, schedule) are those of
the published version.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import DDIMScheduler
from torch import Tensor

from latentsync.config_files import read_json
from latentsync.diffusion.ddpm import DDPM
from latentsync.faces import ALIGNERS
from latentsync.files import cache_root, publish
from latentsync.models.codec import LatentCodec
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import FORMAT_VERSION, ModelFormat
from latentsync.models.serialization import save_network
from latentsync.models.syncnet import StableSyncNet, load_syncnet
from latentsync.weights.checkpoints import is_checkpoint, load_checkpoint
from latentsync.weights.fetch import HUB_PREFIX, VAE_REPO, fetch, in_hub_cache
from latentsync.weights.files import MID_AUDIO_KEY, OLD_MID_AUDIO_KEY, raw_state, require
from latentsync.weights.syncnet import export_official_syncnet
from latentsync.weights.unet import export_official_unet, load_official_unet
from latentsync.weights.vae import load_official_vae, vae_path
from latentsync.weights.whisper import load_official_whisper

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """Resolution and alignment of a published version's training faces."""

    resolution: int
    aligner: str


# The aligner of the training data: 68 smoothed points until spring 2025, then 106 points.
VERSIONS = {
    "1.0": Version(resolution=256, aligner="legacy"),
    "1.5": Version(resolution=256, aligner="legacy"),
    "1.6": Version(resolution=512, aligner="official"),
}

# A UNet's audio embedding width => the Whisper of that width.
WHISPERS = {384: "tiny", 768: "small"}
WHISPER_REPO = "ByteDance/LatentSync-1.5"


def official_scheduler() -> DDIMScheduler:
    """The noise schedule of every published version."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def import_official(
    unet: Path | str,
    out: Path | str,
    *,
    version: str | None = None,
    whisper: Path | str | None = None,
    vae: Path | str | None = None,
    resolution: int | None = None,
    aligner: str | None = None,
) -> Path:
    """Write the model folder of an official UNet file with its Whisper and its VAE; returns `out`.

    Without `version`, it is derived from the tensor names (1.0) or the folder's name. Weights
    trained elsewhere have none and need `resolution` and `aligner`. ValueError for a resolution or
    a Whisper the UNet was not trained with; FileNotFoundError names the missing files.
    """
    unet, out = Path(unet), Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already: choose another name or remove it")
    state = raw_state(unet)
    if version is None and resolution is not None and aligner is not None:
        made = Version(resolution=resolution, aligner=aligner)
    else:
        version = version_of(unet, state, version)
        made = made_for(version, resolution, aligner)
    if made.aligner not in ALIGNERS:
        raise ValueError(f"no aligner is called {made.aligner!r}; there are {', '.join(ALIGNERS)}")
    whisper, vae = beside(unet, audio_width(unet, state), whisper, vae)
    model = assemble(unet, whisper, vae, version=version, made=made)
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out) as partial:
        model.save_pretrained(partial)
    label = version or "own"
    logger.info("%s: version %s, %d px, aligner %s", out, label, made.resolution, made.aligner)
    return out


def assemble(
    unet: Path, whisper: Path, vae: Path, *, version: str | None, made: Version
) -> LipSyncModel:
    """The model from three files; ValueError if the widths of Whisper and UNet differ."""
    net = load_official_unet(unet, version=version)
    encoder = load_official_whisper(whisper)
    width, given = net.config.cross_attention_dim, encoder.net.net.config.d_model
    if given != width:
        raise ValueError(
            f"{unet} listens to states {width} wide (whisper-{WHISPERS.get(width, '?')}), "
            f"{whisper} makes them {given} wide"
        )
    files = (unet, weights_in(whisper), vae_path(vae))
    return LipSyncModel(
        unet=net,
        codec=LatentCodec(load_official_vae(vae)),
        audio_encoder=encoder,
        process=DDPM(official_scheduler()),
        model_format=ModelFormat(resolution=made.resolution, aligner=made.aligner),
        training={
            "imported_version": version,
            "imported_files": {path.name: digest([path]) for path in files},
        },
    )


def audio_width(unet: Path, state: Mapping[str, Tensor]) -> int:
    """The width of the audio embeddings a UNet file expects."""
    key = OLD_MID_AUDIO_KEY if OLD_MID_AUDIO_KEY in state else MID_AUDIO_KEY
    require(state, unet, "UNet", key)
    return state[key].shape[1]


def version_of(unet: Path, state: Mapping[str, Tensor], version: str | None) -> str:
    """The given version, or the one derived from the tensor names or the folder's name."""
    if version is not None:
        if version not in VERSIONS:
            raise ValueError(f"there is no version {version!r}; there are {', '.join(VERSIONS)}")
        return version
    if OLD_MID_AUDIO_KEY in state:
        return "1.0"
    named = re.findall(r"latentsync-(1\.\d)", str(unet.absolute()), flags=re.IGNORECASE)
    if named and named[-1] in VERSIONS:
        logger.info("%s: version %s, by the name of its folder", unet, named[-1])
        return str(named[-1])
    raise ValueError(
        f"{unet} may be of version 1.5 (256 px) or 1.6 (512 px), which no tensor tells apart: say "
        "which, with --version 1.6 (published.version=1.6 for infer.py)"
    )


def made_for(version: str, resolution: int | None, aligner: str | None) -> Version:
    """The training resolution and aligner of a version; ValueError for another resolution."""
    known = VERSIONS[version]
    if resolution not in (None, known.resolution):
        raise ValueError(
            f"version {version} was trained at {known.resolution} px, asked for were {resolution} "
            "px: take a version that was trained at that size, or leave the resolution out"
        )
    return Version(resolution=known.resolution, aligner=aligner or known.aligner)


def beside(
    unet: Path, width: int, whisper: Path | str | None, vae: Path | str | None
) -> tuple[Path, Path]:
    """The given Whisper and VAE, else those next to the UNet file or in the hub's cache."""
    size = WHISPERS.get(width)
    if whisper is None and size is None:
        raise ValueError(f"{unet} listens to states {width} wide: say which Whisper makes them")
    near = unet.parent
    whisper_path = (
        Path(whisper)
        if whisper
        else first_of(
            f"Whisper {size} for {unet}",
            [near / "whisper" / f"{size}.pt", near / f"{size}.pt"],
            in_hub_cache(WHISPER_REPO, f"whisper/{size}.pt"),
            f"{size}.pt of OpenAI's Whisper",
        )
    )
    vae_folder = (
        Path(vae)
        if vae
        else first_of(
            f"VAE for {unet}",
            [near / "vae", near / "sd-vae-ft-mse"],
            in_hub_cache(VAE_REPO, "diffusion_pytorch_model.safetensors"),
            f"the folder {VAE_REPO}",
        )
    )
    return whisper_path, vae_folder


def first_of(what: str, places: Sequence[Path], cached: Path | None, source: str) -> Path:
    """The first path that exists, else the file from the hub's cache."""
    found = next((place for place in places if place.exists()), cached)
    if found is None:
        raise FileNotFoundError(
            f"there is no {what}: give it, or put {source} at "
            + " or ".join(str(place) for place in places)
        )
    return found


def export_model(source: Path | str, out: Path | str) -> Path:
    """Write a model folder or one of our training checkpoints as an official file or a folder.

    `source` is the folder of a model or of a SyncNet, or a `.ckpt` in its run's folder. An `out`
    that ends in .pt becomes an official file, any other a folder.
    """
    source, out = Path(source), Path(out)
    network = load_checkpoint(source) if is_checkpoint(source) else load_folder(source)
    if out.suffix != ".pt":
        if not is_checkpoint(source):
            raise ValueError(f"{source} is a folder already: for an official file end {out} in .pt")
        with publish(out) as partial:
            if isinstance(network, StableSyncNet):
                save_network(network, partial)
            else:
                network.save_pretrained(partial)
        return out
    if isinstance(network, StableSyncNet):
        export_official_syncnet(network, out)
        return out
    export_official_unet(network.unet, out)
    for line in not_official(network):
        logger.warning("%s: %s", out, line)
    return out


def load_folder(folder: Path) -> LipSyncModel | StableSyncNet:
    """The model or the SyncNet in a folder."""
    config_path = folder / "config.json"
    if config_path.is_file():
        config = read_json(config_path, unchecked=("training",))
        if config.get("_class_name") == "StableSyncNet":
            return load_syncnet(folder)
    return LipSyncModel.from_pretrained(folder)


def not_official(model: LipSyncModel) -> list[str]:
    """What the official code needs to be configured with, or lacks, to use this model's UNet."""
    lines = []
    config, vae = model.unet.config, model.codec.vae.net.config
    if model.process.prediction_type != "epsilon":
        lines.append(f"predicts {model.process.prediction_type}, official code epsilon")
    if vae.latent_channels != 4 or vae.latents_mean is not None:
        lines.append("was trained with another VAE than sd-vae-ft-mse")
    if not model.format.reference_mouth:
        lines.append("was trained without the mouth of the reference, official code shows it")
    if config.cross_attention_dim not in WHISPERS:
        lines.append(f"listens to states {config.cross_attention_dim} wide, no official Whisper")
    if (config.num_attention_heads, config.norm_num_groups) != (8, 32):
        lines.append("official configs must name its heads and norm groups")
    return lines


def model_folder(
    ckpt: Path | str,
    *,
    version: str | None = None,
    whisper: Path | str | None = None,
    vae: Path | str | None = None,
    cache: Path | None = None,
) -> Path:
    """The model folder for any form of a model, imported once into the user's cache.

    `ckpt` is a model folder (returned as is), a training checkpoint, an official file, or
    hf:owner/name. Cache entries are keyed by file contents, never by names.
    """
    if str(ckpt).startswith(HUB_PREFIX):
        files = fetch(str(ckpt), cache=cache)
        ckpt, whisper, vae = files.unet, whisper or files.whisper, vae or files.vae
    path = Path(ckpt)
    if not path.is_file():
        if path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
            raise FileNotFoundError(f"there is no weight file {path}")
        return path
    models = (cache or cache_root()) / "models"
    models.mkdir(parents=True, exist_ok=True)
    if is_checkpoint(path):
        run = path.resolve().parents[1] / "config.yaml"
        folder = models / digest([path, *([run] if run.is_file() else [])])
        return folder if folder.is_dir() else export_model(path, folder)
    state = raw_state(path)
    version = version_of(path, state, version)
    whisper, vae = beside(path, audio_width(path, state), whisper, vae)
    parts = [path, weights_in(whisper), vae_path(vae)]
    folder = models / digest(parts, extra=f"{version} {FORMAT_VERSION}")
    if folder.is_dir():
        logger.info("%s was imported before: %s", path, folder)
        return folder
    return import_official(path, folder, version=version, whisper=whisper, vae=vae)


def weights_in(whisper: Path) -> Path:
    """The file with a Whisper's tensors."""
    return whisper / "model.safetensors" if whisper.is_dir() else whisper


def digest(paths: Sequence[Path], *, extra: str = "") -> str:
    """The first 32 hex digits of the sha256 over `extra` and the sha256 of each file."""
    whole = hashlib.sha256(extra.encode())
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:32]
