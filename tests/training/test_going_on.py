"""Training that starts from a trained UNet."""

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from hydra import compose, initialize_config_dir

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.losses import ReconLoss
from latentsync.models import LipSyncModel, UNet, save_network
from latentsync.training import DiffusionTask
from pipeline.inputs import build_tiny_model


def task_from(model: LipSyncModel, folder: Path | None, **more: object) -> DiffusionTask:
    return DiffusionTask(
        model,
        losses={"recon": {"weight": 1.0, "loss": ReconLoss()}},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=lambda optimizer: None,
        init=folder,
        **more,
    )


def test_the_unet_of_the_folder_is_taken_over(tmp_path: Path) -> None:
    trained = build_tiny_model()
    for value in trained.unet.parameters():
        value.data.add_(0.5)
    trained.save_pretrained(tmp_path / "trained")
    task = task_from(build_tiny_model(), tmp_path / "trained")
    for name, value in task.unet.state_dict().items():
        assert torch.equal(value, trained.unet.state_dict()[name]), name


def test_a_unet_of_another_shape_is_refused_with_both_names(tmp_path: Path) -> None:
    build_tiny_model().save_pretrained(tmp_path / "trained")
    other = build_tiny_model()
    other.unet = UNet(**{**other.unet.config, "block_out_channels": (32, 96)})
    with pytest.raises(ValueError, match=r"tensors of task\.init=.*trained do not fit a UNet"):
        task_from(other, tmp_path / "trained")


@pytest.fixture
def sd(tmp_path: Path) -> tuple[Path, UNet2DConditionModel]:
    """A folder like that of Stable Diffusion, with the tiny model's widths."""
    torch.manual_seed(4)
    net = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=24,
    )
    save_network(net, tmp_path / "sd" / "unet")
    return tmp_path / "sd", net


def test_a_unet_starts_from_stable_diffusion(sd: tuple[Path, UNet2DConditionModel]) -> None:
    folder, net = sd
    task = task_from(build_tiny_model(), None, init_sd=folder)
    ours, theirs = task.unet.state_dict(), net.state_dict()
    taken = [name for name in ours if torch.equal(ours[name], theirs.get(name, ours[name][:0]))]
    drawn = set(ours) - set(taken)
    assert drawn
    assert all("conv_in." in name or ".attn2.to_" in name for name in drawn)
    assert len(taken) > 10 * len(drawn)


def test_a_unet_starts_from_one_place(sd: tuple[Path, UNet2DConditionModel], tmp_path: Path):
    with pytest.raises(ValueError, match=r"from one place: init=.* or init_sd=.*sd"):
        task_from(build_tiny_model(), tmp_path, init_sd=sd[0])


@pytest.mark.parametrize("experiment", ["unet_stage1", "unet_stage1_512"])
def test_the_experiments_of_stage_1_have_the_switch(experiment: str) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [f"experiment={experiment}", "init_sd=some/folder"]
        assert compose("train", overrides=words).task.init_sd == "some/folder"
        assert compose("train", overrides=words[:1]).task.init_sd is None
