"""Every experiment: compose, two steps, checkpoint, resume, use."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from latentsync import lipsync
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.diffusion.sampler import Sampler
from latentsync.media.audio import write_wav
from latentsync.media.video import probe, read_frames
from latentsync.models import (
    CentredMelAudioEncoder,
    LatentCodec,
    LipSyncModel,
    MouthReader,
    StableSyncNet,
    load_network,
    save_network,
)
from latentsync.pipeline.plan import Choice
from latentsync.prepare import encode_audio, encode_latents
from losses.published import published_state
from smoke.tiny import READER_OF_64, SYNCNETS, TINY_STAGE1, TINY_UNET, fixed_face, run

FOLDER = conf_dir() / "experiment"
NAMES = sorted(
    name
    for path in FOLDER.rglob("*.yaml")
    # Ablations are the demo with other values; their own folder tests them.
    if not (name := path.relative_to(FOLDER).with_suffix("").as_posix()).startswith("ablation/")
)
# The others take minutes in total.
QUICK = {"demo/unet_stage1", "syncnet", "autoencoder_decoder"}
PARAMETERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES]
pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning"
)


@pytest.fixture(scope="module")
def files(work: Path, syncnet_run: Path, stage1_run: Path) -> dict[str, Path]:
    """Tiny versions of everything an experiment may require: a data set with latents of 4 channels,
    and files."""
    shutil.copytree(work / "set", work / "four", ignore=shutil.ignore_patterns("latents"))
    encode_latents(work / "four", work / "sd_vae")
    encode_audio(work / "set", CentredMelAudioEncoder())
    torch.save({"module": published_state(torch.Generator().manual_seed(0))}, work / "mae.pth")
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4), decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
    )  # fmt: skip
    save_network(tiny, work / "taesd")
    four = [f"data.{part}_manifest='{work / 'four'}'" for part in ("train", "val")]
    stage1 = run(
        work, "unet_stage1", "every_stage1_of_all", *TINY_STAGE1, *four,
        f"vae='{work / 'sd_vae'}'", f"whisper='{work / 'whisper'}'",
    )  # fmt: skip
    return {
        "vae": work / "sd_vae",
        "demo_vae": work / "vae",
        "ckpt": stage1 / "model",
        "demo_ckpt": stage1_run / "model",
        "video": work / "raw" / "1.mp4",
        "stage1": stage1 / "model",
        "demo_stage1": stage1_run / "model",
        "syncnet": syncnet_run / "model",
        "whisper": work / "whisper",
        "videomae": work / "mae.pth",
        "tiny_vae": work / "taesd",
    }


def small_words(name: str, config: DictConfig, work: Path, files: dict[str, Path]) -> list[str]:
    """Overrides that fit an experiment to a set of 64 pixels: files, and networks for such
    faces."""
    demo = name.startswith("demo/")
    asked = sorted({*files} & {*config})
    words = [f"{key}='{files.get(f'demo_{key}' if demo else key, files[key])}'" for key in asked]
    if not demo:
        words += [f"data.{part}_manifest='{work / 'four'}'" for part in ("train", "val")]
    fitted = {
        "SyncNetTask": syncnet_words,
        "DiffusionTask": diffusion_words,
        "AutoencoderTask": lambda name, config: [],
        "ReaderTask": lambda name, config: list(READER_OF_64),
    }
    return [*words, *fitted[kind_of(config)](name, config)]


def kind_of(config: DictConfig) -> str:
    return config.task._target_.rsplit(".", 1)[-1]


def syncnet_words(name: str, config: DictConfig) -> list[str]:
    words = ["data.train.windows_per_clip=2"]
    return words if name.startswith("demo/") else [*words, *SYNCNETS[name]]


def diffusion_words(name: str, config: DictConfig) -> list[str]:
    # Clips are short here.
    words = ["data.train.reference_gap=[16,1000]"] if "reference_gap" in config.data.train else []
    if {"ckpt", "stage1"} & {*config}:  # `in` alone does not see missing values
        return words
    return list(TINY_UNET if name.startswith("demo/") else TINY_STAGE1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_trains_goes_on_and_leaves_what_can_be_used(
    work: Path, files: dict[str, Path], name: str
):
    register_resolvers()
    if name in ("adapt", "adapt_24gb"):
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"experiment={name}"])
    words = small_words(name, config, work, files)
    folder = f"every_{name.replace('/', '_')}"
    run_dir = run(work, name, folder, *words)
    assert last_step(run_dir) == 2
    run(work, name, folder, *words, "trainer.max_steps=3", "ckpt_path=last")
    assert last_step(run_dir) == 3
    if "samples" in config.callbacks:
        assert (run_dir / "samples" / "step_0000002.mp4").is_file()
    USES[kind_of(config)](run_dir / "model", work)


def last_step(run_dir: Path) -> int:
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    return checkpoint["global_step"]


def use_lip_sync(folder: Path, work: Path) -> None:
    """Through the public entry point: every frame comes out, and some mouths differ."""
    video, voice, out = work / "raw" / "1.mp4", folder / "voice.wav", folder / "out.mp4"
    write_wav(voice, 0.1 * torch.randn(12_800, generator=torch.Generator().manual_seed(0)))
    lipsync(
        video, voice, out, model=LipSyncModel.from_pretrained(folder), detector=fixed_face(),
        sampler=Sampler("ddim", num_steps=1, guidance_scale=1.0), silence=None,
        choice=Choice(min_size=0),
    )  # fmt: skip
    assert probe(out).num_frames == probe(video).num_frames
    # The ends of generated runs fade into the source; this frame is in the middle.
    before, after = (
        next(read_frames(path, start_seconds=0.4)).astype(int) for path in (video, out)
    )
    assert abs(before - after).max() > 20


def use_syncnet(folder: Path, work: Path) -> None:
    net = load_network(StableSyncNet, folder)
    channels = net.config.visual_encoder["in_channels"]
    half = 2 if net.config.lower_half else 1
    frames = torch.randn(16, channels, net.config.resolution // half, net.config.resolution)
    norms = net.embed_frames(frames).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(16))


def use_vae(folder: Path, work: Path) -> None:
    codec = LatentCodec.from_pretrained(folder)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert codec.decode(codec.encode(pixels)).shape == pixels.shape


def use_reader(folder: Path, work: Path) -> None:
    reader = load_network(MouthReader, folder)
    assert torch.isfinite(reader(torch.rand(2, 3, 64, 64) * 2 - 1)).all()


USES = {
    "SyncNetTask": use_syncnet,
    "DiffusionTask": use_lip_sync,
    "AutoencoderTask": use_vae,
    "ReaderTask": use_reader,
}
