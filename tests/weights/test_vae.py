"""VAE files in all their layouts become the same VAE, with the scale the UNets were trained
with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from latentsync.models import LatentCodec, save_network
from latentsync.weights import load_official_vae, vae_config
from official.recipe import DATA, official_shapes, randn, recipe_value
from weights.published import tiny_vae

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_the_golden_vae_through_a_file(tmp_path: Path):
    golden = np.load(DATA / "tiny_vae.npz")
    shapes = official_shapes("tiny_vae")
    state = {key: recipe_value(f"tinyvae/{key}", shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "vae.bin")
    vae = load_official_vae(tmp_path / "vae.bin")
    images = randn("tinyvae/img", 2, 3, 64, 64).clamp(-1, 1)
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.mode()).sample
    np.testing.assert_allclose(posterior.mean, golden["mean"], atol=1e-4)
    np.testing.assert_allclose(posterior.logvar, golden["logvar"], atol=1e-4)
    np.testing.assert_allclose(decoded, golden["decoded"], atol=1e-4)
    sample = posterior.sample(torch.Generator().manual_seed(7))
    np.testing.assert_allclose(sample, golden["sample_seed7"], atol=1e-4)


def test_full_size_names_and_shapes_are_those_of_stable_diffusion():
    shapes = official_shapes("vae_sd15")
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        vae = AutoencoderKL(**vae_config(state))
    assert {key: tuple(value.shape) for key, value in vae.state_dict().items()} == shapes
    assert LatentCodec(vae).factor == 8


@pytest.mark.parametrize("layout", ["folder", "safetensors", "bin", "old names"])
def test_every_layout_gives_the_same_tensors_and_scale(tmp_path: Path, layout: str):
    vae = tiny_vae(scaling_factor=0.18215)
    state = vae.state_dict()
    save_network(vae, tmp_path / "vae")
    path = tmp_path / "vae"
    if layout == "safetensors":
        path = path / "diffusion_pytorch_model.safetensors"
    elif layout != "folder":
        path = tmp_path / "diffusion_pytorch_model.bin"
        for new, old in OLD.items() if layout == "old names" else ():
            state = {key.replace(f"attentions.0.{new}", f"attentions.0.{old}"): value
                     for key, value in state.items()}  # fmt: skip
        torch.save(state, path)
    loaded = load_official_vae(path)
    torch.testing.assert_close(loaded.state_dict(), vae.state_dict(), rtol=0, atol=0)
    assert (loaded.config.scaling_factor, loaded.config.shift_factor) == (0.18215, 0.0)


@pytest.mark.parametrize(("name", "value"), [("scaling_factor", 0.13025), ("norm_num_groups", 8)])
def test_a_vae_of_another_family_is_refused(tmp_path: Path, name: str, value: float):
    save_network(tiny_vae(**{name: value}), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())[name] == value
    with pytest.raises(ValueError, match=rf"says {name} {value}.*sd-vae-ft-mse"):
        load_official_vae(tmp_path)


def test_an_empty_folder_says_what_to_put_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="sd-vae-ft-mse"):
        load_official_vae(tmp_path)
