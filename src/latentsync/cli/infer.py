"""`infer.py`: a video and a voice => one mp4 and its report; without either, a drawn demo."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from latentsync.cli.run import command
from latentsync.data.synthetic import draw_clip
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import check_paths, lipsync, report_path, sheet_path
from latentsync.weights import model_folder

log = logging.getLogger(__name__)


@command("infer")
def main(config: DictConfig) -> None:
    """Lip-sync `video` to `audio` into `out`."""
    out, folder = Path(config.out), Path(config.folder)
    if not isinstance(config.seed, int):
        raise ValueError(f"seed={config.seed} must be a whole number")
    if (config.video is None) != (config.audio is None):
        raise ValueError("give both video= and audio=, or neither for the drawn demo")
    detector = instantiate(config.faces, _convert_="all")
    sampler = instantiate(config.sampler, _convert_="all")
    with made(folder, wanted=config.video is None or out.parent == folder):
        if config.video is None:
            video, audio = draw_demo(folder, **config.demo)
        else:
            video, audio = Path(config.video), Path(config.audio)
        check_paths(video, audio, out, overwrite=config.overwrite)
        model = load_model(config).to(choose_device(config.device))
        report = lipsync(
            video,
            audio,
            out,
            model=model,
            detector=detector,
            sampler=sampler,
            seed=config.seed,
            crf=config.crf,
            reference=config.reference,
            overwrite=config.overwrite,
            progress=True,
        )
    done = f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"
    log.info("%s in %.1f s: %s", done, report.total_seconds, out)
    log.info("what was done: %s and %s", report_path(out), sheet_path(out))


def load_model(config: DictConfig) -> LipSyncModel:
    """The model `ckpt` names: a folder, or a file that is imported into the user's cache once."""
    published = config.published
    folder = model_folder(
        config.ckpt,
        version=None if published.version is None else str(published.version),
        whisper=published.whisper,
        vae=published.vae,
    )
    return LipSyncModel.from_pretrained(folder)


@contextmanager
def made(folder: Path, *, wanted: bool) -> Iterator[None]:
    """Make the folder if it is wanted; it goes again if the block fails and leaves it empty."""
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if wanted:
            with suppress(OSError):
                folder.rmdir()
        raise


def draw_demo(
    folder: Path, *, seconds: float, size: int, face_seed: int, voice_seed: int
) -> tuple[Path, Path]:
    """A drawn speaker's video and another one's voice."""
    draw_clip(folder / "face", seed=face_seed, seconds=seconds, size=size)
    draw_clip(folder / "voice", seed=voice_seed, seconds=seconds, size=size)
    return folder / "face.mp4", folder / "voice.wav"


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU if there is one."""
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    kinds = {"cpu": True, "cuda": has_cuda, "mps": torch.backends.mps.is_available()}
    if not kinds.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, is_there in kinds.items() if is_there)
        raise ValueError(f"device={name} is not on this machine; there is: {there}, or auto")
    return torch.device(name)
