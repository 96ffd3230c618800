import numpy as np
import pytest
import torch

from latentsync.faces import Placement, load_mask, paste
from latentsync.faces.mask import Rows, paint_weights


def test_the_mask_is_the_official_one(official: dict) -> None:
    np.testing.assert_array_equal(load_mask(), official["mask_256"])
    rows = load_mask("mask", 512)[::8]
    np.testing.assert_allclose(rows * 255, official["mask_512_rows"], atol=1e-3)
    assert (load_mask() == 0).sum() == 26673


@pytest.mark.parametrize("resolution", [256, 512])
@pytest.mark.parametrize("name", ["mask2", "mask3", "mask4"])
def test_other_masks_cover_the_official_area(official: dict, name: str, resolution: int) -> None:
    area = load_mask(name, resolution).sum(dtype=np.float64)
    np.testing.assert_allclose(area, official[f"{name}_{resolution}_sum"], atol=1e-3)


def test_a_mask_can_become_a_tensor() -> None:
    assert torch.from_numpy(load_mask("mask", 128)).dtype == torch.float32


def test_an_unknown_mask_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mouth'.*mask, mask2"):
        load_mask("mouth")


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_paint_weights_rise_from_the_edge_inwards(resolution: int) -> None:
    weights = paint_weights("mask", resolution)
    assert not weights[load_mask("mask", resolution) >= 0.5].any()
    assert weights.max() == 1
    steps = np.abs(np.diff(weights, axis=0)).max()
    assert steps < max(0.5, 2 / (0.035 * resolution))


@pytest.mark.parametrize("resolution", [256, 512])
def test_a_narrowed_mask_paints_exactly_its_rows(resolution: int) -> None:
    narrowed = load_mask("mask", resolution, rows=Rows(120, 200)) < 0.5
    whole, scale = load_mask("mask", resolution) < 0.5, resolution // 256
    assert np.flatnonzero(narrowed.any(axis=1)).tolist() == [*range(120 * scale, 200 * scale)]
    np.testing.assert_array_equal(
        narrowed[122 * scale : 198 * scale], whole[122 * scale : 198 * scale]
    )
    assert not paint_weights("mask", resolution, rows=Rows(120, 200))[~narrowed].any()


def test_rows_that_leave_nothing_are_refused_with_those_of_the_mask() -> None:
    with pytest.raises(ValueError, match=r"mask_top=243 .*'mask', which has the rows 95 to 242"):
        load_mask("mask", rows=Rows(243, 256))


def test_what_is_kept_keeps_its_bits_and_so_do_other_rows() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    face, place = np.zeros_like(frame), Placement(np.eye(2, 3), (256, 256))
    occluded = np.zeros((256, 256), dtype=np.float32)
    occluded[:, 128:] = 1
    out = paste(frame, face, place, rows=Rows(120, 200), occluded=occluded)
    np.testing.assert_array_equal(out[:120], frame[:120])
    np.testing.assert_array_equal(out[200:], frame[200:])
    np.testing.assert_array_equal(out[:, 128:], frame[:, 128:])
    assert (out[140:180, 100:127] == 0).all()
    np.testing.assert_array_equal(
        paste(frame, face, place, occluded=occluded + 1 - occluded), frame
    )
