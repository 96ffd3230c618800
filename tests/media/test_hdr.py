"""HDR to SDR and back, against published values of the curves and as a round trip."""

import numpy as np
import pytest
from av.video.frame import VideoFrame

from latentsync.media.colour import ColourTags
from latentsync.media.frame import RgbReader
from latentsync.media.hdr import (
    KNEE,
    PEAK_NITS,
    WHITE_CODE,
    WHITE_NITS,
    bent,
    from_sdr,
    hlg_nits,
    hlg_of,
    pq_nits,
    pq_of,
    to_sdr,
    unbent,
)
from latentsync.media.planes import planes_of
from latentsync.media.yuv import coded

PQ, HLG = 16, 18
BT709, BT2020, P3 = 1, 9, 12


@pytest.mark.parametrize(
    ("nits", "stored"), [(0, 0.0), (100, 0.508), (203, 0.581), (1000, 0.752), (10_000, 1.0)]
)
def test_pq_is_that_of_the_norm(nits: float, stored: float) -> None:
    """ITU-R BT.2408, table 1: 203 nits are at 58 % of PQ."""
    assert pq_of(np.array([float(nits)]))[0] == pytest.approx(stored, abs=0.0006)
    assert pq_nits(np.array([float(stored)]))[0] == pytest.approx(nits, rel=0.006, abs=1e-6)


@pytest.mark.parametrize(("nits", "stored"), [(0, 0.0), (203, 0.75), (1000, 1.0)])
def test_hlg_is_that_of_the_norm(nits: float, stored: float) -> None:
    """ITU-R BT.2408: white is at 75 % of HLG, on a display of 1000 nits."""
    assert hlg_nits(np.array([float(stored)]))[0] == pytest.approx(nits, rel=0.002)
    assert hlg_of(np.array([float(nits)]))[0] == pytest.approx(stored, abs=0.0005)


def test_light_is_kept_up_to_the_knee_rises_and_comes_back() -> None:
    light = np.linspace(0, PEAK_NITS / WHITE_NITS, 1000)
    shown = bent(light)
    np.testing.assert_array_equal(shown[light <= KNEE], light[light <= KNEE])
    assert (np.diff(shown) > 0).all()
    assert shown[-1] == pytest.approx(1)
    np.testing.assert_allclose(unbent(shown), light, rtol=1e-9, atol=1e-12)
    assert bent(np.array([20.0]))[0] == 1


def levels(step: int = 15) -> np.ndarray:
    values = np.arange(0, 256, step)
    cube = np.stack(np.meshgrid(values, values, values), axis=-1)
    return cube.reshape(len(values), -1, 3).astype(np.uint8)


@pytest.mark.parametrize("primaries", [BT2020, P3, 2])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_sdr_comes_back(transfer: int, primaries: int) -> None:
    stored = from_sdr(levels(), transfer=transfer, primaries=primaries)
    assert stored.min() >= 0
    assert stored.max() <= 1
    codes = np.rint(stored * WHITE_CODE).astype(np.uint16)
    back = to_sdr(codes, transfer=transfer, primaries=primaries).astype(int)
    difference = np.abs(back - levels())
    assert difference.max() <= 4
    assert difference.mean() < 0.04
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    codes = np.rint(from_sdr(greys, transfer=transfer, primaries=primaries) * WHITE_CODE)
    back = to_sdr(codes.astype(np.uint16), transfer=transfer, primaries=primaries)
    assert np.abs(back.astype(int) - greys).max() <= 1


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_skin_comes_back_through_a_file_of_ten_bits(transfer: int) -> None:
    """Through the planes and libswscale's own conversion to RGB."""
    rng = np.random.default_rng(0)
    skin = np.array([190, 140, 115]) + rng.integers(-50, 50, (64, 64, 1)) + [[[5, 0, -5]]]
    skin = np.repeat(np.repeat(skin.astype(np.uint8), 2, axis=0), 2, axis=1)
    rgb = from_sdr(skin, transfer=transfer, primaries=BT2020)
    frame = VideoFrame(128, 128, "yuv444p10le")
    frame.colorspace, frame.color_range = 9, 1
    frame.color_trc, frame.color_primaries = transfer, BT2020
    planes = coded(rgb, matrix=9, full_range=False, depth=10)
    for new, old in zip(planes_of(frame), planes, strict=True):
        new[:] = old
    assert ColourTags.of(frame).depth == 10
    difference = np.abs(RgbReader().read(frame).astype(int) - skin)
    assert difference.mean() < 0.5
    assert difference.max() <= 3


def test_an_hdr_picture_is_not_shown_as_its_codes() -> None:
    """A face lit at 60 nits is at 44 % of PQ, which looks dark and grey if PQ is not decoded."""
    codes = pq_of(np.array([[60.0, 40.0, 30.0]]))[None]
    shown = to_sdr(np.rint(codes * WHITE_CODE).astype(np.uint16), transfer=PQ, primaries=BT709)
    linear = (shown[0, 0] / 255.0) ** 2.4 * WHITE_NITS
    assert linear == pytest.approx([60, 40, 30], rel=0.02)


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("depth", [8, 10])
def test_planes_are_those_of_the_norm(matrix: int, full_range: bool, depth: int) -> None:
    """Black, white, and the primaries' chroma (ITU-T H.273)."""
    unit = 1 << (depth - 8)
    rgb = np.array([[[0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]]], np.float32)
    light, blue, red = (
        plane[0].tolist() for plane in coded(rgb, matrix=matrix, full_range=full_range, depth=depth)
    )
    black, white = (0, 256 * unit - 1) if full_range else (16 * unit, 235 * unit)
    assert light[:2] == [black, white]
    assert blue[:2] == red[:2] == [128 * unit] * 2
    most = 256 * unit - 1 if full_range else 240 * unit
    assert blue[2] == red[3] == pytest.approx(most, abs=1)
