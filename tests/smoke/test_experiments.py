"""What the full-size experiments train, with which losses, and what they leave unchanged."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.debug import shrink_networks
from latentsync.models import LipSyncModel, StableSyncNet, load_network
from latentsync.prepare import encode_latents
from latentsync.training.callbacks.curves import read_curves
from losses.published import published_state
from smoke.tiny import SYNCNETS, TINY_STAGE1, overrides, run

STAGE1_FILES = ("vae", "whisper")
OFFICIAL_WEIGHTS = {"recon": 1.0, "sync": 0.05, "perceptual": 0.1, "trepa": 10.0}


def train_syncnet(work: Path, name: str, *words: str) -> Path:
    return run(
        work, name, f"full_{name}", "data.train.windows_per_clip=2",
        *SYNCNETS[name], *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def syncnet(work: Path) -> Path:
    """The model folder of a SyncNet of the published layout."""
    return train_syncnet(work, "syncnet") / "model"


@pytest.fixture(scope="module")
def syncnet_latent(work: Path) -> Path:
    # A copy, or other tests would find latents of two VAEs.
    shutil.copytree(work / "set", work / "sd_set")
    shutil.rmtree(work / "sd_set" / "latents", ignore_errors=True)
    encode_latents(work / "sd_set", work / "sd_vae")
    chosen = [f"data.{part}_manifest='{work / 'sd_set'}'" for part in ("train", "val")]
    return train_syncnet(work, "syncnet_latent", *chosen) / "model"


@pytest.fixture(scope="module")
def stage1(work: Path) -> Path:
    return train_stage1(work, "unet_stage1") / "model"


def train_stage1(work: Path, name: str) -> Path:
    return run(
        work, name, f"full_{name}", *TINY_STAGE1,
        f"vae='{work / 'sd_vae'}'", f"whisper='{work / 'whisper'}'",
    )  # fmt: skip


@pytest.fixture(scope="module")
def published(work: Path) -> list[str]:
    """Overrides for the losses of stage 2: a tiny VideoMAE-v2 from a file, a random VGG."""
    path = work / "videomae.pth"
    torch.save({"module": published_state(torch.Generator().manual_seed(0))}, path)
    return [f"videomae='{path}'"]


def train_stage2(work: Path, name: str, run_name: str, stage1: Path, *words: str) -> Path:
    return run(work, name, run_name, f"stage1='{stage1}'", *words)


@pytest.mark.slow
def test_a_syncnet_of_latents_judges_stage_2_without_a_vae(
    work: Path, syncnet_latent: Path, stage1: Path
):
    assert load_network(StableSyncNet, syncnet_latent).reads_latents
    run_dir = train_stage2(
        work, "unet_stage2_efficient", "latent_judge", stage1, f"syncnet='{syncnet_latent}'",
        "losses=[recon,sync]",
    )  # fmt: skip
    assert {"train/sync", "val/sync"} <= set(read_curves(run_dir / "csv"))


@pytest.mark.parametrize(
    "name", ["unet_stage2", pytest.param("unet_stage2_512", marks=pytest.mark.slow)]
)
def test_stage_2_with_all_published_judges(
    work: Path, syncnet: Path, stage1: Path, published: list[str], name: str
):
    run_dir = train_stage2(
        work, name, f"full_{name}", stage1, f"syncnet='{syncnet}'", *published
    )  # fmt: skip
    assert LipSyncModel.from_pretrained(run_dir / "model").unet.config.motion == "all"
    curves = read_curves(run_dir / "csv")
    for _, loss in curves["train/loss"][:1]:
        parts = sum(
            weight * curves[f"train/{part}"][0][1] for part, weight in OFFICIAL_WEIGHTS.items()
        )
        assert loss == pytest.approx(parts, rel=1e-5)


@pytest.mark.slow
def test_stage_2_efficient_trains_decoder_motion_and_audio_attention_only(
    work: Path, syncnet: Path, stage1: Path, published: list[str]
):
    run_dir = train_stage2(
        work, "unet_stage2_efficient", "full_efficient", stage1, f"syncnet='{syncnet}'",
        "task.optimizer.lr=1e-2",
    )  # fmt: skip
    model = LipSyncModel.from_pretrained(run_dir / "model")
    assert model.unet.config.motion == "decoder"
    before = LipSyncModel.from_pretrained(stage1).unet.state_dict()
    changed = {
        name
        for name, value in model.unet.state_dict().items()
        if name in before and not torch.equal(value, before[name])
    }
    assert changed
    assert all("attn2." in name for name in changed)


def test_autoencoder_anew_and_its_decoder_alone(work: Path):
    anew = run(work, "autoencoder", "full_autoencoder") / "model"
    assert load_network(AutoencoderKL, anew).config.latents_mean is not None
    tuned = run(
        work, "autoencoder_decoder", "full_decoder", f"vae='{work / 'sd_vae'}'",
        "callbacks.ema.decay=0.5",  # the average moves, and frozen weights stay bit-identical
    )  # fmt: skip
    before, after = (
        load_network(AutoencoderKL, folder) for folder in (work / "sd_vae", tuned / "model")
    )
    # The meaning of its latents is unchanged: neither the encoder nor the scale has moved.
    assert after.config.latents_mean is None
    assert after.config.scaling_factor == before.config.scaling_factor
    changed = {
        name.split(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == {"decoder", "post_quant_conv"}


@pytest.mark.parametrize("name", ["unet_stage2", "unet_stage2_512"])
def test_the_weights_of_stage_2_are_the_published_ones(name: str):
    losses = composed(name).task.losses
    assert {loss: term.weight for loss, term in losses.items()} == OFFICIAL_WEIGHTS


def test_the_published_form_has_none_of_our_switches():
    task = composed("unet_stage2", "task=diffusion_official").task
    assert (task.audio_dropout, task.sample_latents, task.max_x0_timestep) == (0.0, True, None)
    assert (task.losses.recon.loss.snr_gamma, task.losses.sync.loss.clamp) == (None, False)
    assert task.losses.trepa.loss.backbone.dtype == "float16"
    assert task.optimizer.lr == 1e-5


def test_losses_can_be_left_out_and_lora_put_in():
    task = composed("unet_stage2", "~task.losses.trepa", "+adapter=lora").task
    assert set(task.losses) == {"recon", "sync", "perceptual"}
    assert task.adapter.rank == 16


@pytest.mark.parametrize("name", ["unet_stage1", "unet_stage2", "unet_stage2_efficient"])
def test_with_lora_nothing_else_trains(work: Path, stage1: Path, syncnet: Path, name: str):
    """Regardless of the parts that an experiment trains by itself."""
    pytest.importorskip("peft", reason="the extra lora is not installed")
    files = {
        "vae": work / "sd_vae", "whisper": work / "whisper", "stage1": stage1, "syncnet": syncnet
    }  # fmt: skip
    fit = TINY_STAGE1 if name == "unet_stage1" else ["~task.losses.trepa"]
    if name == "unet_stage2_efficient":
        fit = []
    words = [
        f"{key}='{path}'"
        for key, path in files.items()
        if (key in STAGE1_FILES) == (name == "unet_stage1")
    ]
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(
            "train",
            overrides=overrides(work, name, work / "lora", *words, *fit, "+adapter=lora"),
        )
    shrink_networks(config)
    task = instantiate(config.task, _convert_="all")
    trained = [name for name, value in task.unet.named_parameters() if value.requires_grad]
    assert trained
    assert [name for name in trained if "lora_" not in name] == []


def composed(name: str, *words: str):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"experiment={name}", *words])
    return OmegaConf.masked_copy(config, ["task"])
