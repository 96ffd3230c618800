"""StableSyncNet computes the same as the official one, with official names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.models import StableSyncNet
from latentsync.weights import export_official_syncnet, load_official_syncnet, syncnet_config
from official.recipe import DATA, fill, official_shapes, randn

FRAMES = {"16_latent": (2, 64, 32, 32), "16_pixel_attn": (2, 48, 128, 256)}


def official_syncnet(name: str) -> StableSyncNet:
    """The network of an official config, derived from the official shapes."""
    shapes = official_shapes(f"syncnet_{name}")
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        net = StableSyncNet(**syncnet_config(state, name))
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == shapes
    return fill(net.to_empty(device="cpu"), list(shapes))


def inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    frames = randn(f"syncnet_{name}/v", *FRAMES[name])
    return frames, randn(f"syncnet_{name}/a", 2, 1, 80, 52)


@pytest.mark.parametrize("name", FRAMES)
def test_embeddings_equal_the_official_ones(name: str) -> None:
    golden = np.load(DATA / f"syncnet_{name}.npz")
    with torch.no_grad():
        vision, audio = official_syncnet(name)(*inputs(name))
    np.testing.assert_allclose(vision, golden["vision_embeds"], atol=1e-5)
    np.testing.assert_allclose(audio, golden["audio_embeds"], atol=1e-5)


@pytest.mark.parametrize("name", ["16_pixel_attn", "16_pixel", "16_latent", "25_pixel"])
def test_an_export_has_the_official_names_and_shapes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exporter itself; full-size tensors stay on the meta device."""
    written = {}
    monkeypatch.setattr("latentsync.weights.syncnet.write", lambda file, path: written.update(file))
    shapes = official_shapes(f"syncnet_{name}")
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        net = StableSyncNet(**syncnet_config(state, name))
    export_official_syncnet(net, tmp_path / "syncnet.pt")
    assert {key: tuple(value.shape) for key, value in written["state_dict"].items()} == shapes
    lists = {f"{split}_{kind}_list" for split in ("train", "val") for kind in ("step", "loss")}
    assert set(written) == {"state_dict", "global_step", *lists, "trained_on"}


@pytest.mark.slow
def test_gradients_equal_the_official_ones() -> None:
    golden = np.load(DATA / "syncnet_16_pixel_attn.npz")
    net = official_syncnet("16_pixel_attn")
    frames, mel = inputs("16_pixel_attn")
    vision, audio = net(frames.requires_grad_(True), mel)
    cosine = (vision * audio).sum(dim=1)
    loss = torch.nn.functional.binary_cross_entropy(
        cosine, torch.tensor([1.0, 0.0]), reduction="none"
    )
    loss.mean().backward()
    np.testing.assert_allclose(loss.detach(), golden["loss"], rtol=1e-4)
    np.testing.assert_allclose(frames.grad.norm(), golden["grad_v_norm"], rtol=1e-3)
    part = golden["grad_v_slice"]
    np.testing.assert_allclose(
        frames.grad[:, ::8, ::16, ::16], part, atol=1e-3 * np.abs(part).max()
    )
    weights = dict(net.named_parameters())
    norms = [weights[key].grad.norm().item() for key in golden["grad_keys"]]
    np.testing.assert_allclose(norms, golden["grad_norms"], rtol=1e-3)


def test_export_then_import_gives_the_same_tensors(tmp_path: Path) -> None:
    net = official_syncnet("16_latent")
    export_official_syncnet(net, tmp_path / "syncnet.pt")
    loaded = load_official_syncnet(tmp_path / "syncnet.pt")
    assert not loaded.config.lower_half
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), atol=0, rtol=0)
