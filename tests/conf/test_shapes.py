"""Full-size networks of conf/model have the tensors of the published ones."""

import pytest
import torch
from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.models import StableSyncNet
from official.recipe import official_shapes

SYNCNETS = {
    "syncnet": "syncnet_16_pixel_attn",
    "syncnet_plain": "syncnet_16_pixel",
    "syncnet_latent": "syncnet_16_latent",
    "syncnet_25": "syncnet_25_pixel",
}


def network_config(experiment: str, key: str) -> dict:
    """The arguments of the network of an experiment."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"experiment={experiment}"])
    arguments = OmegaConf.to_container(config.task[key])
    arguments.pop("_target_")
    return arguments


def shapes_of(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


@pytest.mark.parametrize("experiment", SYNCNETS)
def test_syncnets(experiment: str):
    with torch.device("meta"):
        net = StableSyncNet(**network_config(experiment, "syncnet"))
    assert shapes_of(net) == official_shapes(SYNCNETS[experiment])


def test_vae():
    with torch.device("meta"):
        net = AutoencoderKL(**network_config("autoencoder", "vae"))
    assert shapes_of(net) == official_shapes("vae_sd15")
