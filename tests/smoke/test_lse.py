"""LSE through `evaluate.py`, with files in the published layout and random weights."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from latentsync.cli.evaluate import run
from latentsync.evaluation.lse import face_tracks
from latentsync.faces import Face
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.mfcc import mfcc
from latentsync.media.video import VideoWriter, read_frames
from latentsync.metrics.lse import lse, why_invalid
from latentsync.metrics.syncnet_v2 import FaceTrack, cropped
from latentsync.models.s3fd import S3FD
from latentsync.models.syncnet_v2 import SyncNetV2
from official.recipe import fill, official_shapes
from official.test_eval_networks import undrawn
from smoke.test_evaluate import SPEECH, config_for

SIZE, NUM_FRAMES = 128, 60
# The box that the detector below sees in every frame.
SIDE = 111.3  # no corner of the crop is a whole number, which rounding could tip over


@pytest.fixture(scope="module")
def syncnet() -> SyncNetV2:
    return fill(undrawn(SyncNetV2), list(official_shapes("eval_syncnet_S")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, syncnet: SyncNetV2) -> dict[str, Path]:
    """SyncNet v2, and an S3FD that finds one face at the only position of its fourth level."""
    folder = tmp_path_factory.mktemp("published")
    s3fd = undrawn(S3FD)
    nn.init.constant_(s3fd.conf[3].bias[1:], 5.0)
    with torch.no_grad():
        size = 5 * np.log(SIDE / 4 / 128)
        s3fd.loc[3].bias.copy_(torch.tensor([0.0, 0.0, size, size]))
    files = {"syncnet_v2": folder / "syncnet_v2.model", "s3fd": folder / "sfd_face.pth"}
    for name, net in (("syncnet_v2", syncnet), ("s3fd", s3fd)):
        state = net.state_dict()
        kept = {key: value for key, value in state.items() if "num_batches" not in key}
        torch.save(kept, files[name])
    return files


def write_talk(path: Path, heights: list[int], seed: int) -> None:
    """A bar of those heights with a sound that changes in loudness and pitch."""
    path.parent.mkdir(exist_ok=True)
    time = np.arange(16_000 * len(heights) // 25) / 16_000
    pitch = 200 + 150 * np.sin(7 * time + seed)
    sound = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) * (1 + np.sin(23 * time)) / 2
    wav = path.with_suffix(".wav")
    write_wav(wav, torch.from_numpy(sound).float())
    form = {"fps": 25, "width": SIZE, "height": SIZE, "crf": 4}
    with VideoWriter(path, **form, audio=wav, audio_seconds=len(heights) / 25) as writer:
        for height in heights:
            frame = np.full((SIZE, SIZE, 3), (60, 100, 140), dtype=np.uint8)
            frame[40 : 40 + height, 20:44] = 255
            frame[70:110, 30 : 30 + 3 * height] = 40
            writer.write(frame)
    wav.unlink()


def compare(tmp_path: Path, *more: str) -> dict:
    overrides = [
        f"pred={tmp_path / 'pred'}", f"ref={tmp_path / 'ref'}", f"out={tmp_path / 'out'}",
        "compare.resolution=64", "metrics=[lse]", "max_frames=200",
        "evaluator.reader=null", "evaluator.syncnet=null", "evaluator.mesh=true",
        "~faces", "+faces._target_=smoke.test_evaluate.SeesTheMouth",
    ]  # fmt: skip
    run(config_for(tmp_path, tmp_path, *overrides, *more))
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def as_published(net: SyncNetV2, path: Path, *, step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Both embeddings of every window, one after the other, from the steps of the authors; those
    of the pictures from the last to the first with a step of -1."""
    half, middle, pad = SIDE / 2, SIZE / 2, int(SIDE / 2 * 1.8)
    top, bottom = int(middle + pad - half), int(middle + pad + half * 1.8)
    left, right = (int(middle + pad + sign * half * 1.4) for sign in (-1, 1))
    crops = []
    for frame in read_frames(path, fps=25):
        blue_first = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        padded = np.pad(blue_first, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
        crops.append(cv2.resize(padded[top:bottom, left:right], (224, 224)))
    # A window more has sound, which the authors do not look at.
    shown = np.stack(crops[: len(crops) - 1][::step])
    frames = torch.from_numpy(shown).permute(3, 0, 1, 2)[None].float()
    sound = read_waveform(path)
    cepstra = mfcc(sound).float().T[None, None]
    starts = range(min(len(crops), len(sound) // 640) - 5)
    with torch.no_grad():
        return tuple(
            torch.cat([embed(start) for start in starts])
            for embed in (
                lambda start: net.forward_lip(frames[:, :, start : start + 5]),
                lambda start: net.forward_aud(cepstra[..., 4 * start : 4 * start + 20]),
            )
        )


def test_the_command_gives_what_the_steps_of_the_authors_give(
    tmp_path: Path, weights: dict[str, Path], syncnet: SyncNetV2
) -> None:
    heights = (SPEECH * 2)[:NUM_FRAMES]
    write_talk(tmp_path / "ref" / "a.mp4", heights, seed=0)
    write_talk(tmp_path / "pred" / "a.mp4", heights[::-1], seed=1)
    files = [f"evaluator.{name}={path}" for name, path in weights.items()]
    metrics = compare(tmp_path, *files)
    assert metrics["settings"]["lse_faces"] == "S3FD"
    for side in ("pred", "ref"):
        vision, audio = as_published(syncnet, tmp_path / side / "a.mp4")
        assert len(vision) == NUM_FRAMES - 5
        expected = lse(vision, audio)
        row = metrics["rows"][side]
        assert row["lse_offset"] == abs(expected.offset)
        assert row["lse_d"] == pytest.approx(expected.distance, rel=1e-4)
        assert row["lse_c"] == pytest.approx(expected.confidence, rel=1e-4)
        assert row["lse_c_0"] == pytest.approx(expected.confidence_at_0, rel=1e-4)
        assert row["lse_c"] >= row["lse_c_0"]


def test_controls_of_lse_are_the_truth_with_another_sound_and_backwards(
    tmp_path: Path, weights: dict[str, Path], syncnet: SyncNetV2
) -> None:
    heights = (SPEECH * 2)[:NUM_FRAMES]
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        write_talk(tmp_path / "ref" / name, heights[seed:], seed=seed)
        write_talk(tmp_path / "pred" / name, heights[seed:], seed=10 + seed)
    files = [f"evaluator.{name}={path}" for name, path in weights.items()]
    rows = compare(tmp_path, *files, "setting=cross")["controls"]["rows"]
    spoken = {
        f"{side} {name}": as_published(syncnet, tmp_path / side / f"{name}.mp4")
        for side in ("ref", "pred")
        for name in "ab"
    }
    back = {name: as_published(syncnet, tmp_path / "ref" / f"{name}.mp4", step=-1) for name in "ab"}
    expected = {
        "ground truth": [spoken["ref a"], spoken["ref b"]],
        "copied source": [
            (spoken["ref a"][0], spoken["pred a"][1]), (spoken["ref b"][0], spoken["pred b"][1])
        ],
        "shuffled audio": [
            (spoken["ref a"][0][:-1], spoken["ref b"][1]),
            (spoken["ref b"][0], spoken["ref a"][1][:-1]),
        ],
        "reversed": [back["a"], back["b"]],
    }  # fmt: skip
    for name, pairs in expected.items():
        figures = [lse(*pair) for pair in pairs]
        distance = np.mean([each.distance for each in figures])
        confidence = np.mean([each.confidence_at_0 for each in figures])
        assert rows[name]["lse_d"] == pytest.approx(distance, rel=1e-4), name
        assert rows[name]["lse_c_0"] == pytest.approx(confidence, abs=1e-4), name


def test_without_networks_it_says_what_to_fetch(tmp_path: Path) -> None:
    for side in ("pred", "ref"):
        write_talk(tmp_path / side / "a.mp4", SPEECH, seed=0)
    missing = compare(tmp_path, "metrics=[lse,perceptual,fid,cmmd,fvd]")["not_measured"]
    assert "evaluator.syncnet_v2 is null" in missing["lse"]
    assert "syncnet_v2.model" in missing["lse"]
    for name in ("lpips_inside", "lpips_outside", "dists_inside", "dists_outside"):
        assert "vgg16-397923af.pth" in missing[name]
    for name, taken in (("fid", "299 px"), ("cmmd", "336 px"), ("fvd", "224 px in [-1,1]")):
        assert f"give a TorchScript file that takes {taken}" in missing[name]


def test_a_clip_without_a_track_is_a_note(tmp_path: Path, weights: dict[str, Path]) -> None:
    for side in ("pred", "ref"):
        write_talk(tmp_path / side / "short.mp4", SPEECH, seed=0)
    metrics = compare(tmp_path, f"evaluator.syncnet_v2={weights['syncnet_v2']}")
    assert metrics["settings"]["lse_faces"] == "SeesTheMouth, not S3FD"
    (note,) = metrics["notes"]
    assert "defined for a face of more than 100 px in 50 frames" in note
    assert "one of 44 px in 30 frames" in note
    assert "lse_c" not in metrics["rows"]["pred"]


def face(x: float) -> Face:
    box = np.array([x, 0.0, x + 100, 120])
    return Face(box, box.reshape(2, 2), 1.0, "box")


def test_a_track_bridges_gaps_and_ends_where_the_face_jumps() -> None:
    frames = [face(2.0 * index) for index in range(10)]
    frames[3:6] = [None] * 3
    first, second = face_tracks([None, *frames, *[face(500.0)] * 4])
    assert (first.first, second.first, len(second.boxes)) == (1, 11, 4)
    np.testing.assert_allclose(first.boxes[:, 0], 2.0 * np.arange(10))
    apart = face_tracks([face(0), *[None] * 25, face(0)])
    assert [each.first for each in apart] == [0, 26]
    assert [each.size for each in apart] == [120, 120]


def test_the_crop_is_grey_beyond_the_frame() -> None:
    box = np.tile([0.0, 0.0, 100.0, 100.0], (13, 1))
    frame = np.full((100, 100, 3), (10, 20, 30), dtype=np.uint8)
    crops = list(cropped([frame] * 13, FaceTrack(0, box)))
    # 140 wide and 140 high, of which 20 are beyond the left side, none beyond the upper one.
    assert crops[0].shape == (224, 224, 3)
    assert crops[0][10, 10].tolist() == [110] * 3
    assert crops[0][10, 112].tolist() == [30, 20, 10]
    assert crops[0][200, 112].tolist() == [110] * 3


@pytest.mark.parametrize(
    ("offsets", "valid"),
    [([3, 3, 4, 2, 3], True), ([-9, 14, 3, 0, 7], False), ([9, -4], True), ([], True)],
)
def test_offsets_that_scatter_are_not_valid(offsets: list[float], valid: bool) -> None:
    reason = why_invalid([float(each) for each in offsets])
    assert (reason is None) is valid
    assert valid or reason.startswith("not valid here")
