"""SyncNet's own evaluation: accuracy, offsets and calibration of embeddings whose sync is known,
and of the clips of a prepared set."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from latentsync.cli.evaluate import run
from latentsync.data.synthetic import render_clip
from latentsync.evaluation.syncnet_itself import SyncNetItself
from latentsync.faces import FixedDetector
from latentsync.models import StableSyncNet
from latentsync.models.serialization import save_network
from latentsync.prepare import Recipe, prepare_clips
from smoke.test_evaluate import POINTS, config_for

STARTS = torch.arange(0, 60, 2)


def walk(seed: int) -> torch.Tensor:
    """Unit vectors of 60 frames, unlike each other, with cosines between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.rand(60, 32, generator=generator) ** 4, dim=-1)


@pytest.mark.parametrize("late", [0, 5, -3])
def test_a_perfect_judge_is_right_and_finds_how_late_the_sound_is(late: int) -> None:
    judged = SyncNetItself()
    for seed in range(3):
        own = walk(seed)
        judged.add(own[STARTS], own.roll(late, dims=0), STARTS, clip=str(seed), speaker="one")
    assert judged.offsets == {late: 3}
    found = judged.summary(trained_on=None)
    itself = found["itself"]
    assert found["offsets"] == {str(late): 3}
    assert (itself["p_in_above_off"] == 1) == (late == 0)
    assert (itself["cosine_in"] == pytest.approx(1)) == (late == 0)
    assert found["sync_not_valid"] is None


def test_a_judge_by_chance_is_said_to_be_one() -> None:
    judged = SyncNetItself()
    for seed in range(6):
        judged.add(walk(seed)[STARTS], walk(seed + 9), STARTS, clip=str(seed), speaker=str(seed))
    found = judged.summary(trained_on="drawn")
    assert found["itself"]["p_in_above_off"] == pytest.approx(0.5, abs=0.1)
    assert found["itself"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert "learnt from drawn faces" in found["sync_not_valid"]
    assert sum(found["offsets"].values()) == 6
    assert len(found["offsets"]) > 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    (folder / "raw").mkdir()
    for seed, name in enumerate(("ann", "bob")):
        render_clip(folder / "raw" / name, seed=300 + seed, seconds=2.2, size=64)
    recipe = Recipe(
        make_detector=partial(FixedDetector, POINTS), resolution=64, min_seconds=1.0, occlusion=None
    )
    prepare_clips(folder / "raw", folder / "set", stages=recipe.stages())
    return folder / "set"


def syncnet_of(folder: Path, *, channels: int = 48) -> Path:
    tower = {"block_out_channels": [8, 16], "attn_blocks": [0, 0], "dropout": 0.0}
    torch.manual_seed(0)
    net = StableSyncNet(
        audio_encoder={**tower, "in_channels": 1, "downsample_factors": [[80, 52], 1]},
        visual_encoder={**tower, "in_channels": channels, "downsample_factors": [[16, 32], 1]},
        resolution=32,
    )
    save_network(net, folder)
    return folder


def judge(data: Path, out: Path, *words: str) -> dict:
    run(config_for(data, data, "benchmark=syncnet", f"data.path={data}", f"out={out}", *words))
    return json.loads((out / "metrics.json").read_text())


def test_the_command_judges_every_clip_and_counts_what_it_cannot(
    prepared: Path, tmp_path: Path
) -> None:
    net = f"evaluator.syncnet={syncnet_of(tmp_path / 'net')}"
    out = tmp_path / "out"
    found = judge(prepared, out, net, "max_frames=40")
    assert found["rows"]["own sound"]["num_clips"] == sum(found["offsets"].values()) == 2
    assert found["intervals"]["own sound"]["sync"]["num_speakers"] == 2
    assert {"accuracy", "p_in_above_off", "calibration_error"} <= found["itself"].keys()
    weights = [each["weight"] for each in found["calibration"]]
    assert sum(weights) == pytest.approx(1)
    assert "not valid here" in found["sync_not_valid"]  # its weights are random
    for name in ("calibration.png", "offsets.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert len((out / "clips.csv").read_text().splitlines()) == 3
    first = (out / "metrics.json").read_text()
    judge(prepared, tmp_path / "again", net, "max_frames=40")
    assert (tmp_path / "again" / "metrics.json").read_text() == first
    # A clip that cannot be read is a failure by name, and the other is judged.
    (clip,) = (prepared / "clips").rglob("ann*.mp4")
    whole = clip.read_bytes()
    clip.write_bytes(b"no video")
    try:
        with pytest.raises(ValueError, match=rf"1 of 2 clips could not .* {clip.name}"):
            judge(prepared, tmp_path / "one", net, "max_frames=40")
    finally:
        clip.write_bytes(whole)
    left = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert left["num_failed"] == left["rows"]["own sound"]["num_clips"] == 1


def test_what_cannot_be_judged_is_refused_by_name(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="benchmark=syncnet needs data="):
        judge(prepared, tmp_path / "a", "data.path=null")
    with pytest.raises(ValueError, match=r"needs evaluator\.syncnet="):
        judge(prepared, tmp_path / "b", "evaluator.syncnet=null")
    net = f"evaluator.syncnet={syncnet_of(tmp_path / 'latent', channels=64)}"
    with pytest.raises(ValueError, match="reads latents"):
        judge(prepared, tmp_path / "c", net)
    net = f"evaluator.syncnet={syncnet_of(tmp_path / 'net')}"
    with pytest.raises(ValueError, match=r"2 of 2 clips .*sync needs 16 frames or more, got 12"):
        run(config_for(prepared, prepared, "benchmark=syncnet", f"data.path={prepared}", net,
                       f"out={tmp_path / 'd'}", "max_frames=12"))  # fmt: skip
