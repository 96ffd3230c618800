"""LipScore and AVS by networks whose features are known; what is missing is said."""

from pathlib import Path

import pytest
import torch

from latentsync.metrics.lip_reading import AudioVisualSync, LipNetwork, LipScore
from metrics.networks import files_in, save_script

SIDE, NUM_FRAMES = 8, 6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return files_in(tmp_path_factory.mktemp("networks"))


def level(grey: float) -> torch.Tensor:
    """Faces of one grey, 0 to 1."""
    return torch.full((1, NUM_FRAMES, 3, 64, 64), 2 * grey - 1)


def network(path: str | None) -> LipNetwork:
    return LipNetwork(path, side=SIDE, mean=0.25, std=0.5)


def test_the_score_is_the_cosine_of_what_the_network_gives(files: dict[str, str]) -> None:
    metric = LipScore(network(files["lip_score"]))
    # (.75 - .25) / .5 = 1 and (.25 - .25) / .5 = 0: the cosine of (1, 1) and (0, 1).
    metric.update(level(0.75), level(0.25))
    assert metric.compute()["lip_score"] == pytest.approx(0.5**0.5, abs=1e-6)
    metric.update(level(0.4), level(0.4))
    assert metric.compute()["lip_score"] == pytest.approx((0.5**0.5 + 1) / 2, abs=1e-6)
    metric.reset()
    metric.update(level(0.4), level(0.4))
    assert metric.compute()["lip_score"] == pytest.approx(1)


def test_frames_count_alike(files: dict[str, str]) -> None:
    half = torch.cat([level(0.75)[:, :3], level(0.25)[:, 3:]], dim=1)
    metric = LipScore(network(files["lip_score"]))
    metric.update(half, level(0.25))
    assert metric.compute()["lip_score"] == pytest.approx((0.5**0.5 + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("num_samples", [NUM_FRAMES * 640, NUM_FRAMES * 640 + 3000])
def test_each_of_the_three_shows_the_network_what_it_should(
    files: dict[str, str], num_samples: int
) -> None:
    metric = AudioVisualSync(network(files["av_sync"]))
    speech = torch.full((num_samples,), 0.5)
    metric.update(level(0.75), level(0.25 - 0.5 * 0.5), speech)
    figures = metric.compute()
    # Seen (1, 0), filmed (-.5, 0), heard (0, .5); with the sound (1, .5) and (-.5, .5).
    assert figures["avs_u"] == pytest.approx(0, abs=1e-6)
    assert figures["avs_m"] == pytest.approx((-0.5 + 0.25) / (1.25 * 0.5) ** 0.5, abs=1e-6)
    assert figures["avs_v"] == pytest.approx(-1, abs=1e-6)


def test_sound_that_ends_early_goes_on_in_silence(files: dict[str, str]) -> None:
    metric = AudioVisualSync(network(files["av_sync"]))
    metric.update(level(0.75), level(0.75), torch.full((100,), 0.5))
    assert metric.compute()["avs_m"] == pytest.approx(1)


def test_only_the_mouth_is_shown_and_its_proportions_are_natural() -> None:
    face = torch.zeros(1, 1, 3, 64, 64)
    face[..., 26:62, 8:56] = 1
    crops = network("unused").crops(face)
    # All inside is white, (1 - .25) / .5; 36 rows of 64 of 4 units, 48 columns of 64 of 3.
    torch.testing.assert_close(crops, torch.full((1, 1, SIDE, SIDE), 1.5))
    assert 36 / 64 * 4 == 48 / 64 * 3


def test_without_a_file_it_says_what_to_give_and_a_wrong_one_is_refused(
    files: dict[str, str], tmp_path: Path
) -> None:
    assert "metrics.lip_score.network.path" in str(LipScore(network(None)).not_ready)
    assert "metrics.av_sync.network.path" in str(AudioVisualSync(network(None)).not_ready)
    assert LipScore(network(files["lip_score"])).not_ready is None
    with pytest.raises(ValueError, match=r"extractor.pt does not take inputs of shape \(1, 6, 1"):
        LipScore(network(files["extractor"])).update(level(0.5), level(0.5))
    save_script(torch.nn.Flatten(2), tmp_path / "flat.pt")
    save_script(torch.nn.Flatten(1), tmp_path / "one.pt")
    assert network(str(tmp_path / "flat.pt")).read(torch.ones(6, 1, 4, 4)).shape == (6, 16)
    with pytest.raises(ValueError, match=r"shape \(1, 384\) for 6 frames, wanted \(1, 6, d\)"):
        LipScore(network(str(tmp_path / "one.pt"))).update(level(0.5), level(0.5))
    with pytest.raises(FileNotFoundError, match="no TorchScript network"):
        LipScore(network(str(tmp_path / "none.pt"))).update(level(0.5), level(0.5))
