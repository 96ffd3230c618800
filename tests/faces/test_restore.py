import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from latentsync.faces import (
    OfficialAligner,
    Placement,
    SmoothAligner,
    align,
    crop_template,
    load_mask,
    paste,
    restore,
)
from latentsync.faces.warp import invert, transform

FACE = np.array([[400.0, 250.0], [500.0, 262.0], [446.0, 310.0]])


def turned(scale: float, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (FACE - FACE.mean(axis=0)) @ turn.T * scale + FACE.mean(axis=0)


def location_in_mask(frame: np.ndarray, placement: Placement, resolution: int) -> np.ndarray:
    """For every frame pixel, the mask's value at the nearest face pixel; 1 outside the face."""
    height, width = frame.shape[:2]
    nearest = {"flags": cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, "borderValue": 1}
    back = invert(placement.square_matrix(resolution))
    hard = (load_mask("mask", resolution) >= 0.5).astype(np.float32)
    return cv2.warpAffine(hard, invert(back), (width, height), **nearest)


def psnr(difference: np.ndarray) -> float:
    return 20 * np.log10(255 / np.sqrt((difference.astype(float) ** 2).mean()))


@pytest.mark.parametrize("aligner", [SmoothAligner, OfficialAligner])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_face_put_back_is_where_it_was(
    soft_frame: np.ndarray, aligner: type, scale: float, degrees: float
) -> None:
    (placement,) = aligner(256).placements([turned(scale, degrees)])
    out = paste(soft_frame, align(soft_frame, placement, 256), placement)
    inside = location_in_mask(soft_frame, placement, 256) == 0
    assert inside.sum() > 500
    assert psnr(out[inside].astype(int) - soft_frame[inside]) > 38


@pytest.mark.parametrize("resolution", [64, 128, 256])
@pytest.mark.parametrize("scale", [0.15, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("degrees", [0, 40])
def test_outside_the_mask_no_bit_changes(
    soft_frame: np.ndarray, resolution: int, scale: float, degrees: float
) -> None:
    (placement,) = SmoothAligner(resolution).placements([turned(scale, degrees)])
    face = np.full((resolution, resolution, 3), 255, dtype=np.uint8)
    before = soft_frame.copy()
    out = paste(soft_frame, face, placement)
    np.testing.assert_array_equal(soft_frame, before)
    outside = location_in_mask(soft_frame, placement, resolution) == 1
    np.testing.assert_array_equal(out[outside], soft_frame[outside])
    middle = transform(
        invert(placement.square_matrix(resolution)), np.array([[0.5, 0.68]]) * resolution
    )
    column, row = np.rint(middle[0]).astype(int)
    np.testing.assert_array_equal(out[row, column], 255)


def test_the_mask_border_does_not_show(soft_frame: np.ndarray) -> None:
    """A face eight levels brighter causes no step anywhere: the weights rise slowly."""
    flat = np.full_like(soft_frame, 100)
    (placement,) = SmoothAligner(256).placements([turned(1.5, 10)])
    out = paste(flat, np.full((256, 256, 3), 108, dtype=np.uint8), placement).astype(int)
    assert out.max() == 108
    assert np.abs(np.diff(out[..., 0], axis=0)).max() <= 2
    assert np.abs(np.diff(out[..., 0], axis=1)).max() <= 2


@pytest.mark.parametrize("region", ["mask", "crop"])
@pytest.mark.parametrize("aligner", [SmoothAligner, OfficialAligner])
@pytest.mark.parametrize("shift", [(-430, 0), (500, 300), (0, -240), (3000, 0)])
def test_faces_cut_by_the_frame_are_pasted(
    soft_frame: np.ndarray, aligner: type, region: str, shift: tuple[int, int]
) -> None:
    (placement,) = aligner(128).placements([FACE + np.array(shift)])
    out = paste(soft_frame, align(soft_frame, placement, 128), placement, region=region)
    assert out.shape == soft_frame.shape
    assert psnr(out.astype(int) - soft_frame + 1e-9) > 30


@pytest.mark.parametrize("case", ["256_0", "512_0"])
def test_restoring_the_crop_equals_the_official_code(
    official: dict, official_frame: np.ndarray, share_off: float, case: str
) -> None:
    resolution = int(case.split("_")[0])
    matrix = official[f"restore_M_{case}"].astype(float)
    placement = Placement(matrix, crop_template(resolution)[1])
    # The official arrays were made with flipped channels, so that the paste is visible.
    face = np.ascontiguousarray(align(official_frame, placement, resolution)[..., ::-1])
    out = paste(official_frame, face, placement, region="crop")
    y0, y1, x0, x1 = official[f"restore_out_box_{case}"]
    difference = np.abs(out[y0:y1, x0:x1].astype(int) - official[f"restore_out_{case}"])
    assert difference.max() <= 2
    assert (difference > 0).mean() < share_off
    out[y0:y1, x0:x1] = official_frame[y0:y1, x0:x1]
    np.testing.assert_array_equal(out, official_frame)


def test_an_unknown_region_is_refused(soft_frame: np.ndarray) -> None:
    (placement,) = SmoothAligner(64).placements([FACE])
    face = align(soft_frame, placement, 64)
    with pytest.raises(ValueError, match="'mouth'"):
        paste(soft_frame, face, placement, region="mouth")


def test_restore_streams_and_passes_faceless_frames_through(soft_frame: np.ndarray) -> None:
    alive: list[weakref.ref] = []
    (placement,) = SmoothAligner(64).placements([FACE])

    def frames() -> Iterator[np.ndarray]:
        for _ in range(6):
            frame = soft_frame.copy()
            alive.append(weakref.ref(frame))
            yield frame
            del frame

    face = np.zeros((64, 64, 3), dtype=np.uint8)
    faces = [face, None, face, None, face, face]
    placements = [placement, None, placement, placement, None, placement]
    for index, out in enumerate(restore(frames(), faces, placements)):
        same = np.array_equal(out, soft_frame)
        assert same == (faces[index] is None or placements[index] is None)
        assert sum(ref() is not None for ref in alive) <= 2


def test_restore_wants_as_many_faces_as_frames(soft_frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(restore([soft_frame, soft_frame], [None], [None, None]))
