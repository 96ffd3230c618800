"""SyncNet v2 and S3FD compute the same as the official evaluation, with official names."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from latentsync.faces import Face, FaceDetector
from latentsync.metrics.lse import lse, shift_distances
from latentsync.models.s3fd import S3FD, S3FDDetector, best_boxes, detect_boxes, suppress
from latentsync.models.syncnet_v2 import SyncNetV2
from latentsync.weights.s3fd import load_official_s3fd
from latentsync.weights.syncnet_v2 import load_official_syncnet_v2
from official.recipe import DATA, fill, official_shapes, randn

Network = TypeVar("Network", SyncNetV2, S3FD)

NETWORKS = {"eval_syncnet_S": SyncNetV2, "s3fd": S3FD}
LOADERS = {"eval_syncnet_S": load_official_syncnet_v2, "s3fd": load_official_s3fd}


def undrawn(kind: type[Network]) -> Network:
    """A network of zeros, since sampling weights that are replaced at once takes long."""
    with torch.device("meta"):
        net = kind()
    net.to_empty(device="cpu")
    with torch.no_grad():
        for value in net.state_dict().values():
            value.zero_()
    return net.eval()


@pytest.fixture(scope="module")
def syncnet() -> nn.Module:
    return fill(undrawn(SyncNetV2), list(official_shapes("eval_syncnet_S")))


@pytest.fixture(scope="module")
def s3fd() -> nn.Module:
    return fill(undrawn(S3FD), list(official_shapes("s3fd")))


@pytest.fixture(scope="module")
def one_place() -> S3FD:
    """A detector that finds a face at every position of its fourth level, and nowhere else."""
    net = undrawn(S3FD)
    nn.init.constant_(net.conf[3].bias[1:], 5.0)
    with torch.no_grad():
        net.loc[3].bias.copy_(torch.tensor([1.0, -2.0, 5 * np.log(0.5), 0.0]))
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_those_of_the_official_file(name: str) -> None:
    with torch.device("meta"):
        own = NETWORKS[name]().state_dict()
    assert {key: tuple(value.shape) for key, value in own.items()} == official_shapes(name)


def test_features_equal_the_official_ones(syncnet: SyncNetV2) -> None:
    golden = np.load(DATA / "eval_syncnet_S.npz")
    frames, cepstra = randn("S/lip", 2, 3, 5, 224, 224), randn("S/aud", 2, 1, 13, 20)
    with torch.no_grad():
        features = {
            "lip": syncnet.forward_lip(frames),
            "aud": syncnet.forward_aud(cepstra),
            "lipfeat": syncnet.forward_lipfeat(frames),
        }
        vision, audio = syncnet(frames, cepstra)
    for name, value in features.items():
        np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-4 * golden[name].std())
    torch.testing.assert_close(vision, features["lip"])
    torch.testing.assert_close(audio, features["aud"])


def test_distances_offset_and_confidence_equal_the_official_ones() -> None:
    golden = np.load(DATA / "eval_syncnet_S.npz")
    vision, audio = randn("S/f1", 12, 1024), randn("S/f2", 12, 1024)
    np.testing.assert_allclose(shift_distances(vision, audio), golden["pdist"], rtol=1e-4)
    found = lse(vision, audio)
    assert found.offset == golden["av_offset"]
    np.testing.assert_allclose(found.distance, golden["min_dist"].item(), rtol=1e-4)
    np.testing.assert_allclose(found.confidence, golden["conf"].item(), rtol=1e-4)


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_sound_that_comes_late_has_a_negative_offset(late: int) -> None:
    truth = randn("lse/truth", 60, 32)
    found = lse(truth[20:50], truth[20 - late : 50 - late])
    assert found.offset == -late
    # Beyond the end of the sound, the distance is to zero.
    missing = truth[20:50][: abs(late)] if late < 0 else truth[20:50][30 - late :]
    np.testing.assert_allclose(
        found.distance, missing.norm(dim=1).sum().item() / 30, rtol=1e-4, atol=1e-4
    )


def test_unequal_and_empty_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(3, 8\)"):
        lse(torch.zeros(4, 8), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="got none"):
        lse(torch.zeros(0, 8), torch.zeros(0, 8))


def test_heads_and_boxes_equal_the_official_ones(s3fd: S3FD) -> None:
    golden = np.load(DATA / "s3fd.npz")
    picture = 50 * randn("s3fd/x", 1, 3, 96, 128)
    with torch.no_grad():
        offsets, logits = s3fd.heads(picture)
        boxes, scores = s3fd(picture)
    for name, levels in (("loc", offsets), ("conf", logits)):
        for index, level in enumerate(levels):
            expected = golden[f"{name}{index}"]
            atol = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(level, expected, rtol=0, atol=atol)
    found = best_boxes(boxes[0], scores[0])[:, [4, 0, 1, 2, 3]]
    np.testing.assert_allclose(found, golden["out_nonzero"], rtol=1e-4, atol=1e-5)


def test_suppression_keeps_the_official_boxes() -> None:
    golden = np.load(DATA / "s3fd.npz")
    np.testing.assert_array_equal(suppress(golden["nms_in"], 0.1), golden["nms_keep_01"])
    assert len(suppress(np.zeros((0, 5)), 0.1)) == 0


def test_a_box_is_its_anchor_moved_and_stretched_in_frame_pixels(one_place: S3FD) -> None:
    # Half of the frame is 32x32: the fourth level has one position there, an anchor of 128 around
    # 16.
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    (found,) = detect_boxes(one_place, frame, scale=0.5)
    center, size = np.array([16 + 12.8, 16 - 25.6]), np.array([64.0, 128.0])
    expected = 2 * np.concatenate([center - size / 2, center + size / 2])
    np.testing.assert_allclose(found[:4], expected, rtol=1e-5)
    np.testing.assert_allclose(found[4], 1 / (1 + np.exp(-5)), rtol=1e-5)
    assert len(detect_boxes(one_place, frame, scale=0.5, min_score=0.995)) == 0


def test_the_detector_follows_only_what_overlaps(one_place: S3FD) -> None:
    detector = S3FDDetector(one_place, scale=0.5)
    assert isinstance(detector, FaceDetector)
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    (face,) = detector(frame)
    followed = detector.refine(frame, face)
    assert followed is not None
    np.testing.assert_array_equal(followed.box, face.box)
    away = Face(face.box + 100, face.points, 1.0, "box")
    assert detector.refine(frame, away) is None
    assert S3FDDetector(one_place, scale=0.5, min_score=0.995).refine(frame, face) is None


def test_the_mean_colour_is_nothing_to_the_network(s3fd: S3FD) -> None:
    frame = np.full((64, 96, 3), (123, 117, 104), dtype=np.uint8)
    with torch.no_grad():
        boxes, scores = s3fd(torch.zeros(1, 3, 64, 96))
    expected = best_boxes(boxes[0], scores[0]).double().numpy()
    expected[:, :4] *= [96, 64, 96, 64]
    expected = expected[suppress(expected, 0.1)]
    found = detect_boxes(s3fd, frame, scale=1.0, min_score=0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_frame_too_small_for_the_network_is_refused(one_place: S3FD) -> None:
    with pytest.raises(ValueError, match=r"64x120 px at scale 0\.25"):
        detect_boxes(one_place, np.zeros((120, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_file_gives_its_tensors(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    net = request.getfixturevalue({"eval_syncnet_S": "syncnet"}.get(name, name))
    state = net.state_dict()
    # Like files of old torch versions: without counts, and not zip archives.
    uncounted = {key: value for key, value in state.items() if "num_batches" not in key}
    path = tmp_path / "weights.model"
    torch.save(uncounted, path, _use_new_zipfile_serialization=False)
    loaded = LOADERS[name](path)
    assert not loaded.training
    torch.testing.assert_close(dict(loaded.state_dict()), dict(state), atol=0, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_another_network_or_shape_are_refused(name: str, tmp_path: Path) -> None:
    (other,) = NETWORKS.keys() - {name}
    path = tmp_path / "weights.pth"
    torch.save({key: torch.zeros(1) for key in official_shapes(other)}, path)
    with pytest.raises(ValueError, match="is no official"):
        LOADERS[name](path)
    torch.save({key: torch.zeros(1) for key in official_shapes(name)}, path)
    with pytest.raises(ValueError, match=r"tensors of .* do not fit a (SyncNetV2|S3FD): .* here"):
        LOADERS[name](path)
    with pytest.raises(FileNotFoundError):
        LOADERS[name](tmp_path / "nowhere.pth")
