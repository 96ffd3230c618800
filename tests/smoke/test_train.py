"""Every experiment trains two steps on the CPU, leaves a model, and goes on where it stopped."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from transformers import WhisperConfig, WhisperModel

from latentsync.cli.run import conf_dir, register_resolvers
from latentsync.cli.train import train
from latentsync.data.synthetic import draw_clip
from latentsync.faces import FixedDetector
from latentsync.models import LipSyncModel, StableSyncNet, load_network, save_network
from latentsync.prepare import Recipe, encode_latents, prepare_clips
from latentsync.training.callbacks import read_curves

POINTS = [[48.0, 48.0], [80.0, 48.0], [64.0, 64.0]]
TINY_UNET = [
    "task.model.unet.block_out_channels=[8,16]",
    "task.model.unet.attention_levels=[false,true]",
    "task.model.unet.norm_num_groups=4",
    "task.model.unet.cross_attention_dim=16",
    "task.model.model_format.resolution=64",
]


def fixed_face() -> FixedDetector:
    return FixedDetector(POINTS)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn speakers, prepared at 64 px, with latents of a tiny random VAE."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "raw").mkdir()
    for seed in (1, 2):
        draw_clip(folder / "raw" / str(seed), seed=seed, seconds=2.6, size=128)
    prepare_clips(
        folder / "raw", folder / "set", recipe=Recipe(make_detector=fixed_face, resolution=64)
    )
    torch.manual_seed(0)
    for name, channels in (("vae", 8), ("sd_vae", 4)):
        save_network(tiny_vae(channels), folder / name)
    encode_latents(folder / "set", folder / "vae")
    tiny_whisper().save_pretrained(folder / "whisper")
    return folder


def tiny_vae(latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[4, 4, 4],
        norm_num_groups=2,
        latent_channels=latent_channels,
        mid_block_add_attention=False,
    )


def tiny_whisper() -> WhisperModel:
    return WhisperModel(
        WhisperConfig(
            d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=8,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    )  # fmt: skip


def run(work: Path, experiment: str, name: str, *overrides: str) -> Path:
    """Two steps of an experiment in a folder of its own, which is returned."""
    register_resolvers()
    run_dir = work / "runs" / name
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(
            "train",
            overrides=[
                f"experiment={experiment}",
                f"paths.run_dir='{run_dir}'",
                f"data.train_manifest='{work / 'set'}'",
                f"data.val_manifest='{work / 'set'}'",
                "data.num_workers=0",
                "trainer.accelerator=cpu",
                "trainer.precision=32-true",
                "trainer.val_check_interval=2",
                "trainer.limit_val_batches=1",
                "trainer.log_every_n_steps=1",
                "+trainer.enable_progress_bar=false",
                "~callbacks.progress",
                *(overrides if any("max_steps" in o for o in overrides) else
                  (*overrides, "trainer.max_steps=2")),
            ],
        )  # fmt: skip
    train(config)
    return run_dir


@pytest.fixture(scope="module")
def syncnet_run(work: Path) -> Path:
    return run(
        work, "demo/syncnet", "syncnet", "data.batch_size=2", "data.train.windows_per_clip=2"
    )


@pytest.fixture(scope="module")
def stage1_run(work: Path) -> Path:
    return run(
        work, "demo/unet_stage1", "stage1", *TINY_UNET,
        f"vae='{work / 'vae'}'", "data.batch_size=2",
    )  # fmt: skip


def test_autoencoder(work: Path):
    run_dir = run(
        work, "demo/autoencoder", "autoencoder",
        "task.vae.block_out_channels=[8,8,8]", "data.batch_size=2",
    )  # fmt: skip
    vae = load_network(AutoencoderKL, run_dir / "model")
    assert len(vae.config.latents_mean) == len(vae.config.latents_std) == 8
    assert (run_dir / "curves.png").stat().st_size > 0


def test_syncnet(syncnet_run: Path):
    net = load_network(StableSyncNet, syncnet_run / "model")
    vision = net.embed_frames(torch.randn(1, 48, 32, 64))
    assert vision.norm().item() == pytest.approx(1, abs=1e-5)


def test_stage1_and_stage2_with_its_syncnet(work: Path, stage1_run: Path, syncnet_run: Path):
    assert LipSyncModel.from_pretrained(stage1_run / "model").unet.config.motion == "none"
    run_dir = run(
        work, "demo/unet_stage2", "stage2", f"stage1='{stage1_run / 'model'}'",
        f"syncnet='{syncnet_run / 'model'}'", "data.batch_size=2",
    )  # fmt: skip
    model = LipSyncModel.from_pretrained(run_dir / "model")
    assert model.unet.config.motion == "decoder"
    log = read_curves(run_dir / "csv")
    assert {"train/recon", "train/sync", "val/sync"} <= set(log)


def test_checkpoints_hold_the_unet_and_its_training_only(stage1_run: Path):
    checkpoint = torch.load(stage1_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"unet"}
    assert checkpoint["global_step"] == 2


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_run_goes_on_from_its_last_step(work: Path, stage1_run: Path):
    arguments = [*TINY_UNET, f"vae='{work / 'vae'}'", "data.batch_size=2", "trainer.max_steps=3"]
    run(work, "demo/unet_stage1", "stage1", *arguments, "ckpt_path=last")
    checkpoint = torch.load(stage1_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3


def test_full_size_recipes_on_tiny_widths(work: Path):
    tower = "[8,8,8,8,8,8,8]"
    syncnet = run(
        work, "syncnet", "full_syncnet", "data.batch_size=2", "data.train.windows_per_clip=2",
        "task.syncnet.resolution=64", f"task.syncnet.audio_encoder.block_out_channels={tower}",
        "task.syncnet.visual_encoder.block_out_channels=[8,8,8,8,8,8]",
        "task.syncnet.visual_encoder.downsample_factors=[[1,2],2,2,2,2,2]",
        "task.syncnet.visual_encoder.attn_blocks=[0,0,0,1,1,0]",
    )  # fmt: skip
    stage1 = run(
        work, "unet_stage1", "full_stage1", *TINY_UNET, f"vae='{work / 'sd_vae'}'",
        "data.batch_size=2", "task.model.unet.num_attention_heads=2",
        "task.model.unet.cross_attention_dim=80", f"whisper='{work / 'whisper'}'",
    )  # fmt: skip
    stage2 = run(
        work, "unet_stage2", "full_stage2", f"stage1='{stage1 / 'model'}'",
        f"syncnet='{syncnet / 'model'}'", "data.batch_size=2",
    )  # fmt: skip
    assert LipSyncModel.from_pretrained(stage2 / "model").unet.config.motion == "all"
