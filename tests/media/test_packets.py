"""Frames read by a list of packets are those of the reader that opens the container."""

import copy
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.data.listed import packed
from latentsync.data.synthetic import render_clip
from latentsync.media.clip_reader import PyAvReader
from latentsync.media.colour import ColourTags
from latentsync.media.packets import UNUSED, Decoders, PacketReader, packets_of
from latentsync.media.video import VideoWriter, read_frames
from media.sources import blank_packet, shades, write_media


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    drawn = render_clip(tmp_path_factory.mktemp("drawn") / "face", seed=3, seconds=1.2, size=64)
    return list(read_frames(drawn))


def write(path: Path, frames: list[np.ndarray], **options: object) -> Path:
    """A clip as prepare.py writes it, unless `options` say something else."""
    given = {"crf": 8, "keyframe_interval": 8, "tune": "fastdecode", "preset": "veryfast"}
    given |= {"colour": ColourTags(matrix=6)}
    with VideoWriter(path, fps=25, width=64, height=64, **given | options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def by_list(path: Path, decoders: Decoders) -> PacketReader:
    packets = packets_of(path)
    assert packets is not None
    return PacketReader(packets, memoryview(path.read_bytes()), decoders, name=str(path))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keyframe_interval": 250},
        {"keyframe_interval": 1},
        {"colour": ColourTags(matrix=1)},
        {"colour": ColourTags(matrix=6, full_range=True)},
        {"preset": "slow", "tune": None},
    ],
)
def test_frames_are_those_of_the_container(tmp_path: Path, face, options) -> None:
    path = write(tmp_path / "a.mp4", face, **options)
    truth = PyAvReader(path).frames(range(len(face)))
    reader = by_list(path, Decoders())
    assert len(reader) == len(face)
    assert np.array_equal(reader.frames(range(len(face))), truth)
    rng = np.random.default_rng(0)
    for _ in range(20):
        indices = rng.integers(len(face), size=5)  # in any order, with repetitions
        assert np.array_equal(reader.frames(indices), truth[indices])
        start = int(rng.integers(len(face) - 8))
        assert np.array_equal(reader.frames(np.arange(start, start + 8)), truth[start : start + 8])
    assert reader.frames([]).shape == (0, 64, 64, 3)
    with pytest.raises(IndexError, match=rf"a\.mp4 has {len(face)} frames, frame -1 is not there"):
        reader.frames([-1])


def test_clips_of_one_encoder_share_a_decoder(tmp_path: Path, face) -> None:
    decoders = Decoders()
    paths = [write(tmp_path / "a.mp4", face), write(tmp_path / "b.mp4", face[::-1])]
    readers = [by_list(path, decoders) for path in paths]
    truths = [PyAvReader(path).frames(range(len(face))) for path in paths]
    for index in (3, 20, 9, 27):
        for reader, truth in zip(readers, truths, strict=True):
            assert np.array_equal(reader.frames([index])[0], truth[index])
    assert len(decoders._made) == 1
    assert not copy.copy(decoders)._made


def test_frames_that_nobody_refers_to_are_not_decoded(tmp_path: Path, face) -> None:
    packets = packets_of(write(tmp_path / "a.mp4", face))
    assert packets is not None
    unused = [shown for _, _, shown, kind in packets.rows.tolist() if kind & UNUSED]
    assert 13 in unused
    wanted = np.arange(15, 17)
    decoded = {shown for _, _, shown, _ in packets.needed(wanted)}
    assert {*wanted.tolist()} <= decoded
    assert not decoded & ({*unused} - {*wanted.tolist()})
    assert min(decoded) >= 8  # the key frame before


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "5", "bf": "3", "x264-params": "open-gop=1"}),
        ("a.ts", "libx264", {"g": "16"}),
        ("a.webm", "libvpx-vp9", {"g": "10"}),
        ("a.mp4", "libx265", {"g": "12", "x265-params": "log-level=none"}),
    ],
)
def test_what_cannot_be_read_by_a_list_has_none(tmp_path: Path, name, codec, options) -> None:
    def set_up(stream: av.VideoStream) -> None:
        stream.options = options

    assert packets_of(write_media(tmp_path / name, shades(30), codec=codec, prepare=set_up)) is None


def test_a_damaged_clip_has_no_list(tmp_path: Path, face) -> None:
    path = write(tmp_path / "a.mp4", face)
    blank_packet(path, 20)
    assert packets_of(path) is None
    path.write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"a\.mp4"):
        packets_of(path)


def test_bytes_that_changed_are_an_error(tmp_path: Path, face) -> None:
    path = write(tmp_path / "a.mp4", face)
    packets = packets_of(path)
    assert packets is not None
    content = memoryview(bytes(len(path.read_bytes())))
    reader = PacketReader(packets, content, Decoders(), name="a.mp4 in an archive")
    with pytest.raises(OSError, match=r"a\.mp4 in an archive cannot be decoded"):
        reader.frames([3])
    whole = PacketReader(packets, memoryview(path.read_bytes()), reader.decoders, name="a.mp4")
    assert np.array_equal(whole.frames([3]), PyAvReader(path).frames([3]))


def test_a_list_is_always_the_same_bytes(tmp_path: Path, face) -> None:
    path = write(tmp_path / "a.mp4", face)
    first, second = packets_of(path), packets_of(path)
    assert first is not None and second is not None
    assert packed(first) == packed(second)
