"""Reading a clip's frames by index equals streaming them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.data.synthetic import render_clip
from latentsync.media.clip_reader import READERS, reader_named
from latentsync.media.colour import ColourTags
from latentsync.media.video import VideoWriter, open_clip, read_frames
from media.sources import SIZE, blank_packet, index_of, shades, write_media

BT709, BT601 = ColourTags(matrix=1), ColourTags(matrix=6)


def write(path: Path, frames: list[np.ndarray], **options: object) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, fps=25, width=width, height=height, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    drawn = render_clip(tmp_path_factory.mktemp("drawn") / "face", seed=3, seconds=0.4, size=128)
    return list(read_frames(drawn))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "16"}),
        ("a.mp4", "libx264", {"g": "5", "bf": "3", "x264-params": "open-gop=1"}),
        ("a.mp4", "libx264", {"g": "1"}),
        ("a.mkv", "libx264", {"g": "7", "bf": "2"}),
        ("a.ts", "libx264", {"g": "16"}),
        ("a.webm", "libvpx-vp9", {"g": "10"}),
        ("a.avi", "mpeg4", {"g": "10"}),
        ("a.mov", "libx265", {"g": "12", "x265-params": "log-level=none"}),
    ],
)
def test_frames_come_in_any_order(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    def set_up(stream: av.VideoStream) -> None:
        stream.options = options
        if codec == "mpeg4":
            stream.codec_context.time_base = Fraction(1, 25)

    clip = open_clip(write_media(tmp_path / name, shades(60), codec=codec, prepare=set_up))
    assert len(clip) == 60
    rng = np.random.default_rng(0)
    for _ in range(12):
        indices = rng.integers(60, size=5)
        assert [index_of(frame) for frame in clip.frames(indices)] == indices.tolist()
        start = int(rng.integers(44))
        window = clip.frames(np.arange(start, start + 16))
        assert [index_of(frame) for frame in window] == list(range(start, start + 16))


def test_a_window_that_goes_on_is_decoded_on(tmp_path: Path) -> None:
    clip = open_clip(write(tmp_path / "a.mp4", shades(60), keyframe_interval=60, crf=30))
    clip.frames([3, 4])
    clip.index.keys.clear()  # the table used for seeking
    assert [index_of(frame) for frame in clip.frames([5, 9])] == [5, 9]
    with pytest.raises(KeyError):
        clip.frames([8])


@pytest.mark.parametrize("colour", [BT601, BT709, ColourTags(matrix=6, full_range=True)])
def test_colours_are_those_of_streaming(
    tmp_path: Path, face: list[np.ndarray], colour: ColourTags
) -> None:
    path = write(tmp_path / "a.mp4", face, crf=8, colour=colour)
    streamed = np.stack(list(read_frames(path))).astype(float)
    read = open_clip(path).frames(range(len(face)))
    difference = read - streamed
    assert np.abs(difference).mean() < 0.6
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 0.15  # same brightness, no tint
    assert np.abs(read - np.stack(face).astype(float)).mean() < 3


@pytest.mark.parametrize("height", [64, 720])
def test_without_tags_the_height_says_the_colours(tmp_path: Path, height: int) -> None:
    frames = [np.full((height, 96, 3), (200, 40, 90), np.uint8)] * 2
    path = write_media(tmp_path / "a.mp4", frames)
    streamed = np.stack(list(read_frames(path))).astype(int)
    assert np.abs(open_clip(path).frames([0, 1]) - streamed).max() <= 1


def test_a_frame_that_is_not_there(tmp_path: Path) -> None:
    clip = open_clip(write(tmp_path / "a.mp4", shades(20)))
    with pytest.raises(IndexError, match=r"a\.mp4 has 20 frames, frame 20 is not there"):
        clip.frames([3, 20])
    with pytest.raises(IndexError, match="frame -1"):
        clip.frames([-1])


def test_a_hole_in_the_file_is_an_error_there_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", shades(60), keyframe_interval=5)
    blank_packet(path, 30)
    clip = open_clip(path)
    with pytest.raises(OSError, match=r"a\.mp4 cannot be decoded"):
        clip.frames(range(28, 33))
    assert [index_of(frame) for frame in clip.frames([3, 50])] == [3, 50]
    assert clip.frames([3]).shape == (1, SIZE, SIZE, 3)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest):
    """Readers of clips; decord if it is installed."""
    if request.param == "decord":
        pytest.importorskip("decord", reason="the extra `train` is not installed")
    return reader_named(request.param)


def prepared(path: Path, frames: list[np.ndarray]) -> Path:
    """Write a clip like prepare.py does."""
    return write(path, frames, keyframe_interval=8, crf=8, tune="fastdecode", colour=BT601)


def test_every_reader_gives_the_frames_that_are_asked_for(reader, tmp_path: Path) -> None:
    clip = reader(prepared(tmp_path / "a.mp4", shades(60)))
    assert len(clip) == 60
    rng = np.random.default_rng(0)
    for _ in range(8):
        indices = rng.integers(60, size=6)  # in any order, with repetitions
        assert [index_of(frame) for frame in clip.frames(indices)] == indices.tolist()
    assert clip.frames([]).shape == (0, SIZE, SIZE, 3)
    with pytest.raises(IndexError, match=r"a\.mp4 has 60 frames, frame 60 is not there"):
        clip.frames([3, 60])


def test_readers_differ_by_a_level_or_two(face: list[np.ndarray], tmp_path: Path) -> None:
    """By how much is stated in docs/data.md."""
    pytest.importorskip("decord", reason="the extra `train` is not installed")
    path = prepared(tmp_path / "a.mp4", face)
    ours, theirs = (
        reader_named(name)(path).frames(range(len(face))).astype(int) for name in READERS
    )
    assert np.abs(ours - theirs).mean() < 2
    assert np.abs(ours - theirs).max() <= 8
    truth = np.stack(face).astype(int)
    assert np.abs(theirs - truth).mean() < 4


def test_no_reader_makes_frames_up(reader, tmp_path: Path) -> None:
    path = prepared(tmp_path / "a.mp4", shades(60))
    blank_packet(path, 30)
    with pytest.raises(OSError, match=r"a\.mp4 cannot be decoded"):
        reader(path).frames(range(28, 33))


@pytest.mark.parametrize("content", [None, b"", b"no video at all\n" * 50])
def test_what_is_no_clip_is_one_line(reader, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=r"a\.mp4") as raised:
        reader(path).frames([0])
    assert "\n" not in str(raised.value)


def test_a_reader_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no reader is called 'opencv'; there are pyav, decord"):
        reader_named("opencv")
