"""LPIPS and DISTS of random VGG-16 weights equal the libraries' where the region is everything."""

import warnings
from pathlib import Path

import lpips as published
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import dists as library

from latentsync.evaluation.aggregate import Row, why_not_measured
from latentsync.metrics.perceptual import (
    MaskedPerceptual,
    dists,
    load_heads,
    load_network,
    lpips,
)
from metrics.networks import vgg_state


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(vgg_state(), path)
    return path


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    truth = torch.rand(2, 3, 48, 64, generator=generator) * 2 - 1
    noise = 0.3 * torch.randn(truth.shape, generator=generator)
    return (truth + noise).clamp(-1, 1), truth


def with_backbone(net: nn.Module) -> nn.Module:
    """A library's network, whose layers keep torchvision's numbers, with our random weights."""
    state = net.state_dict()
    given = vgg_state()
    for key in state:
        layer = ".".join(key.split(".")[-2:])
        if f"features.{layer}" in given and "lin" not in key:
            state[key] = given[f"features.{layer}"]
    net.load_state_dict(state)
    return net.eval()


def test_lpips_is_that_of_the_authors(backbone: Path, pair: tuple[Tensor, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        net = published.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    with torch.no_grad():
        expected = with_backbone(net)(*pair).flatten()
        found = lpips(*load_network(backbone, "lpips"), pair, torch.ones(2, 1, 48, 64))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dists_is_that_of_the_library(
    backbone: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its constructor would download VGG-16.
    plain = library.vgg16
    monkeypatch.setattr(library, "vgg16", lambda weights: plain())
    net = with_backbone(library.DISTSNetwork())
    with torch.no_grad():
        expected = net(*((each + 1) / 2 for each in pair))
        found = dists(*load_network(backbone, "dists"), pair, torch.ones(2, 1, 48, 64))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["lpips", "dists"])
def test_what_differs_in_a_region_counts_there(backbone: Path, generator, kind: str) -> None:
    truth = torch.rand(1, 3, 3, 64, 64, generator=generator) * 2 - 1
    noise = torch.randn(truth.shape, generator=generator)
    mask = torch.zeros(1, 3, 1, 64, 64)
    mask[..., 32:, :] = 1
    values: dict[str, list[float]] = {"inside": [], "outside": []}
    for amount in (0.0, 0.1, 0.3):
        pixels = truth + amount * noise * mask
        for region, where in (("inside", mask), ("outside", 1 - mask)):
            metric = MaskedPerceptual(region, kind, backbone=backbone, stride=2)
            reference = {"inside": "truth", "outside": "original"}[region]
            name = {"inside": "painted", "outside": "kept"}[region]
            metric.update(pixels, **{reference: truth, name: where})
            values[region] += metric.compute().values()
    assert values["inside"] == sorted(values["inside"])
    assert values["inside"][0] == pytest.approx(0, abs=1e-6)
    assert values["inside"][2] > 3 * values["outside"][2] >= 0


def test_without_a_file_it_is_listed_with_what_to_fetch() -> None:
    metric = MaskedPerceptual("inside", "lpips", backbone=None)
    reason = why_not_measured({"mine": metric}, {})["mine"]
    assert "evaluator.vgg is null" in reason
    assert "vgg16-397923af.pth" in reason
    row = Row({"mine": metric})
    sample = {name: torch.zeros(1, 1, 3, 8, 8) for name in ("pixels", "truth", "painted")}
    assert row.add(sample, clip="a.mp4", speaker="a") == {}
    assert row.summary() == {"num_clips": 1}


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="vgg16-397923af"):
        load_network(tmp_path / "nowhere.pth", "lpips")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"is no VGG-16 of torchvision: it lacks features\.0\.bias"
    ):
        load_network(tmp_path / "other.pth", "lpips")
    assert sum(map(len, load_heads("lpips"))) == 64 + 128 + 256 + 512 + 512
