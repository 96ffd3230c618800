import numpy as np
import pytest
import torch

from latentsync.faces import load_mask
from latentsync.faces.mask import paint_weights


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
