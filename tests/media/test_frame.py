"""Pictures with a changed part: the part is as set, everything else as stored in the file."""

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from latentsync.media.colour import ColourTags
from latentsync.media.frame import Picture, RgbReader, UnreadFrame
from latentsync.media.planes import chroma_of, halved, planes_of
from latentsync.media.yuv import YuvMaker

WIDTH, HEIGHT = 160, 128
BOX = (40, 30, 97, 83)


def noise(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(fine, (0, 0), 1.2), None, 0, 255, cv2.NORM_MINMAX)


def coded(
    path: Path, *, params: str = "", pixel_format: str = "yuv420p", turned: int = 0, **tags: int
) -> Path:
    """One frame, encoded at high quality."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "10", "x264-params": params}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        if turned:
            stream.set_display_rotation(turned)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        frame = VideoFrame.from_ndarray(noise(), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.fixture(params=["left", "centre"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, VideoFrame]]:
    params = {"left": "", "centre": "chromaloc=1"}[request.param]
    yield request.param, decoded(coded(tmp_path / "a.mp4", params=params, colorspace=1))


def test_where_chroma_is_sampled_is_read_off_the_picture(stored: tuple, tmp_path: Path):
    chroma, frame = stored
    assert chroma_of(frame) == chroma
    assert ColourTags.of(frame).chroma == chroma
    for number, place in ((2, "topleft"), (3, None)):
        other = decoded(coded(tmp_path / f"{number}.mp4", params=f"chromaloc={number}"))
        assert chroma_of(other) == place


@pytest.mark.parametrize("box", [BOX, (0, 0, 31, 17), (99, 70, WIDTH, HEIGHT), (7, 8, 8, 9)])
def test_a_part_is_that_part_of_the_whole(stored: tuple, box: tuple[int, int, int, int]):
    reader = RgbReader()
    x0, y0, x1, y1 = box
    whole = reader.read(stored[1])
    np.testing.assert_array_equal(reader.read_part(stored[1], box), whole[y0:y1, x0:x1])


def test_pixels_that_were_not_changed_are_stored_as_they_were(stored: tuple):
    _, frame = stored
    maker = YuvMaker("yuv420p", ColourTags.of(frame))
    picture = Picture(frame, RgbReader())
    for made in (maker.make(picture), maker.make(painted(picture, BOX, lambda part: part))):
        for old, new in zip(planes_of(frame), planes_of(made), strict=True):
            np.testing.assert_array_equal(new, old)
    changed = maker.make(painted(picture, BOX, lambda part: 255 - part))
    for number, (old, new) in enumerate(zip(planes_of(frame), planes_of(changed), strict=True)):
        x0, y0, x1, y1 = BOX if number == 0 else (19, 15, 49, 42)
        outside = np.ones(old.shape, bool)
        outside[y0:y1, x0:x1] = False
        np.testing.assert_array_equal(new[outside], old[outside])
        assert (new[~outside] != old[~outside]).mean() > 0.8


def test_a_changed_part_is_what_a_whole_conversion_makes_of_it(stored: tuple):
    """Two ways: converting only the part, or everything to RGB and back."""
    _, frame = stored
    maker = YuvMaker("yuv420p", ColourTags.of(frame))
    picture = painted(Picture(frame, RgbReader()), BOX, lambda part: 255 - part)
    short, long = planes_of(maker.make(picture)), planes_of(maker.make(picture.rgb()))
    for number, (a, b) in enumerate(zip(short, long, strict=True)):
        x0, y0, x1, y1 = BOX if number == 0 else (21, 16, 47, 40)
        np.testing.assert_allclose(a[y0:y1, x0:x1].astype(int), b[y0:y1, x0:x1], atol=1)


@pytest.mark.parametrize("depth", [8, 10])
def test_top_left_chroma_is_the_mean_around_the_first_of_four_pixels(depth: int):
    plane = noise()[..., 0]
    if depth == 10:
        plane = plane.astype(np.uint16) * 4 + 3
    padded = np.pad(plane.astype(float), 1, mode="edge")
    rows = (padded[0:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    mean = (rows[:, 0:-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    np.testing.assert_allclose(halved(plane, "topleft"), mean[::2, ::2], atol=0.51)


def test_left_chroma_is_the_mean_around_the_left_pixels():
    plane = noise()[..., 0]
    rows = (plane[0::2].astype(float) + plane[1::2]) / 2
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    mean = (padded[:, 0:-2:2] + 2 * padded[:, 1:-1:2] + padded[:, 2::2]) / 4
    np.testing.assert_allclose(halved(plane, "left"), mean, atol=0.51)


def test_what_lies_at_left_chroma_comes_back_there(stored: tuple):
    """Smooth colours survive RGB => 4:2:0 => RGB; half a pixel of shift would be visible."""
    _, frame = stored
    across = np.linspace(0, 255, WIDTH).round()
    ramp = np.stack([np.tile(across, (HEIGHT, 1))] * 3, axis=-1).astype(np.uint8)
    ramp[..., 2] = 255 - ramp[..., 2]
    made = YuvMaker("yuv420p", ColourTags.of(frame)).make(
        Picture(frame, RgbReader()).with_part((0, 0, WIDTH, HEIGHT), 255 - ramp, ramp)
    )
    # Only the decoder's own frame has the chroma location, so its planes are replaced.
    for old, new in zip(planes_of(frame), planes_of(made), strict=True):
        old[:] = new
    back = RgbReader().read(frame)[:, 4:-4].astype(int)
    red, _, blue = (back - ramp[:, 4:-4]).mean(axis=(0, 1))
    # 1.6 levels per pixel, up in red and down in blue: half a pixel would be 0.8; rounding cancels
    # out.
    assert abs(red - blue) / 2 < 0.35


def test_parts_lie_over_each_other_in_order(stored: tuple):
    picture = Picture(stored[1], RgbReader())
    once = painted(picture, BOX, lambda part: np.full_like(part, 10))
    twice = painted(once, (60, 50, 120, 100), lambda part: part // 2 + 100)
    seen = twice.rgb()
    assert seen[35, 45].tolist() == [10, 10, 10]
    assert seen[60, 70].tolist() == [105, 105, 105]
    np.testing.assert_array_equal(twice.rgb((50, 40, 80, 70)), seen[40:70, 50:80])
    assert not np.array_equal(picture.rgb(), seen), "the picture itself stays"


@pytest.mark.parametrize(
    ("pixel_format", "depth"),
    [
        ("yuv422p", 8),
        ("yuv444p", 8),
        ("nv12", 8),
        ("yuv420p10le", 10),
        ("yuv422p10le", 10),
        ("yuv444p10le", 10),
    ],
)
def test_brightness_is_kept_however_chroma_is_stored(tmp_path: Path, pixel_format: str, depth: int):
    frame = decoded(coded(tmp_path / "a.mp4", pixel_format=pixel_format, colorspace=1))
    colour = ColourTags.of(frame)
    assert colour.depth == depth
    picture = painted(Picture(frame, RgbReader()), BOX, lambda part: 255 - part)
    maker = YuvMaker("yuv420p" if depth == 8 else "yuv420p10le", colour)
    short, long = planes_of(maker.make(picture)), planes_of(maker.make(picture.rgb()))
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[BOX[1] : BOX[3], BOX[0] : BOX[2]] = False
    np.testing.assert_array_equal(short[0][outside], planes_of(frame)[0][outside])
    # And everything equals a conversion to 8-bit RGB and back, within the latter's loss: the
    # strongest colours of noise are outside of RGB.
    unit = 1 << (depth - 8)
    for a, b in zip(short, long, strict=True):
        difference = np.abs(a.astype(int) - b)
        assert difference.mean() < 3 * unit


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv422p10le"])
def test_brightness_of_turned_pictures_is_kept(tmp_path: Path, pixel_format: str, degrees: int):
    frame = decoded(coded(tmp_path / "a.mp4", pixel_format=pixel_format, turned=degrees))
    assert frame.rotation % 360 == degrees
    colour = ColourTags.of(frame)
    picture = Picture(frame, RgbReader())
    maker = YuvMaker("yuv420p" if colour.depth == 8 else "yuv420p10le", colour)
    made = maker.make(picture)
    assert (made.height, made.width) == picture.shape[:2]
    np.testing.assert_array_equal(
        planes_of(made)[0], np.rot90(planes_of(frame)[0], k=degrees // 90)
    )
    back = RgbReader().read(made).astype(int)
    assert np.abs(back - picture.rgb()).mean() < 8


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_planes_of_odd_pictures_are_kept(tmp_path: Path, pixel_format: str):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH - 1, HEIGHT - 1, pixel_format
        odd = np.ascontiguousarray(noise()[1:, 1:])
        container.mux(stream.encode(VideoFrame.from_ndarray(odd, format="rgb24")))
        container.mux(stream.encode(None))
    frame = decoded(path)
    colour = ColourTags.of(frame)
    box = (90, 70, WIDTH - 1, HEIGHT - 1)
    picture = painted(Picture(frame, RgbReader()), box, lambda part: 255 - part)
    made = planes_of(YuvMaker(pixel_format, colour).make(picture))
    stored = planes_of(frame)
    assert made[0].shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(made[0][:70, :-1], stored[0][:70])
    np.testing.assert_array_equal(made[0][:, -1], made[0][:, -2])
    np.testing.assert_array_equal(made[0][-1], made[0][-2])
    for old, new in zip(stored[1:], made[1:], strict=True):
        np.testing.assert_array_equal(new[:34], old[:34])
    assert (made[0][70:-1, 90:-1] != stored[0][70:, 90:]).mean() > 0.8


def painted(picture: Picture, box: tuple[int, int, int, int], change) -> Picture:
    """The picture with `change` applied inside the box."""
    around = picture.around(box)
    before = picture.rgb(around)
    after = before.copy()
    x, y = box[0] - around[0], box[1] - around[1]
    part = after[y : y + box[3] - box[1], x : x + box[2] - box[0]]
    part[:] = change(part)
    return picture.with_part(around, before, after)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv444p"])
@pytest.mark.parametrize("turned", [0, 90])
def test_samples_of_an_unread_frame_are_pixels_of_the_whole(
    pixel_format: str, turned: int, tmp_path: Path
):
    frame = decoded(coded(tmp_path / "a.mp4", pixel_format=pixel_format, turned=turned))
    whole = RgbReader(quick=True).read(frame)
    reader = RgbReader(quick=True)
    for size in ((17, 9), (11, 13), (WIDTH // 2, HEIGHT // 2)):
        unread = UnreadFrame(frame, reader)
        assert unread.shape == whole.shape
        expected = cv2.resize(whole, size, interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(unread.sampled(size), expected)
        np.testing.assert_array_equal(unread.rgb(), whole)
        np.testing.assert_array_equal(unread.sampled(size), expected)
        assert unread.rgb() is unread.rgb()


def test_samples_are_read_alone_only_if_they_are_few(tmp_path: Path):
    frame = decoded(coded(tmp_path / "a.mp4"))
    assert RgbReader(quick=True).samples_cost_less(frame, (17, 9))
    assert not RgbReader(quick=True).samples_cost_less(frame, (WIDTH // 2, HEIGHT // 2))
    assert not RgbReader().samples_cost_less(frame, (17, 9))
