"""LPIPS sees the lower half only."""

from copy import deepcopy

import pytest
import torch

from latentsync.losses.perceptual import PerceptualLoss, load_backbone
from losses.guesses import guess


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    torch.manual_seed(0)
    return PerceptualLoss(None, random_backbone=True)


def test_only_the_lower_half_counts(loss, generator):
    truth = torch.rand(1, 4, 2, 64, 64, generator=generator) * 2 - 1
    batch = {"pixels": truth.permute(0, 2, 1, 3, 4)[:, :, :3]}
    assert loss(guess(truth), batch).item() == 0
    upper, lower = truth.clone(), truth.clone()
    upper[..., :32, :] *= -1
    lower[..., 32:, :] *= -1
    assert loss(guess(upper), batch).item() == 0
    assert loss(guess(lower), batch).item() > 0


def test_it_is_float32_within_autocast(loss, generator):
    truth = torch.rand(1, 4, 1, 64, 64, generator=generator) * 2 - 1
    batch = {"pixels": truth.permute(0, 2, 1, 3, 4)[:, :, :3]}
    denoised = guess(truth, x0=truth * 0.5)
    plain = loss(denoised, batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(denoised, batch), plain)


def test_missing_weights_say_what_to_download(loss, tmp_path):
    with pytest.raises(ValueError, match=r"download vgg16-397923af\.pth .* give its path as vgg="):
        PerceptualLoss(None)
    with pytest.raises(FileNotFoundError, match=r"download vgg16-397923af\.pth"):
        load_backbone(loss.net.net, tmp_path / "vgg16-397923af.pth")


def test_torchvision_s_file_fills_the_backbone(loss, tmp_path):
    slices = loss.net.net.net.state_dict()
    state = {f"features.{name.split('.', 1)[1]}": value for name, value in slices.items()}
    torch.save(state | {"classifier.0.bias": torch.zeros(4096)}, tmp_path / "vgg.pth")
    fresh = deepcopy(loss.net.net)
    for value in fresh.net.parameters():
        value.data.zero_()
    load_backbone(fresh, tmp_path / "vgg.pth")
    filled = fresh.net.state_dict()
    assert set(filled) == set(slices)
    assert all(torch.equal(filled[name], slices[name]) for name in slices)
