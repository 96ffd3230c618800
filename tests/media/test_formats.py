"""Handling of source formats: the codec chosen, and the changes reported."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from latentsync.media.colour import ColourTags
from latentsync.media.formats import check_source, codec_for, is_padded, what_changes
from latentsync.media.video import VideoInfo
from latentsync.media.writer import VideoWriter, pixel_format_for

SDR8, SDR10 = ColourTags(), ColourTags(depth=10)
PQ, HLG = (ColourTags(9, False, 9, transfer, depth=10) for transfer in (16, 18))


def source(**changes: object) -> VideoInfo:
    info = VideoInfo(
        path=Path("in.mp4"),
        fps=Fraction(25),
        num_frames=25,
        width=1920,
        height=1080,
        rotation=0,
        duration_seconds=1.0,
        has_audio=False,
        codec="h264",
        pixel_format="yuv420p",
        sample_aspect_ratio=Fraction(1),
        time_base=Fraction(1, 12800),
        colour=SDR8,
    )
    return replace(info, **changes)


@pytest.mark.parametrize(
    ("asked", "info", "suffix", "codec"),
    [
        ("auto", source(), ".mp4", "h264"),
        ("auto", source(pixel_format="yuv422p"), ".mp4", "h264"),
        ("auto", source(colour=SDR10), ".mp4", "hevc"),
        ("auto", source(colour=PQ), ".MKV", "hevc"),
        ("auto", source(colour=PQ), ".m4v", "h264"),
        ("auto", source(colour=SDR10, width=48), ".mp4", "h264"),
        ("h264", source(colour=PQ), ".mp4", "h264"),
        ("hevc", source(), ".mp4", "hevc"),
    ],
)
def test_more_than_eight_bits_go_where_they_are_played(
    asked: str, info: VideoInfo, suffix: str, codec: str
) -> None:
    assert codec_for(asked, info, suffix) == codec


@pytest.mark.parametrize(
    ("info", "crf", "told"),
    [
        (source(), 18, []),
        (source(pixel_format="nv12"), 18, []),
        (source(pixel_format="yuvj420p"), 18, []),
        (source(pixel_format="yuv422p"), 18, ["4:2:2"]),
        (source(pixel_format="yuv444p"), 18, ["4:4:4"]),
        (source(pixel_format="yuv444p"), 0, []),
        (source(pixel_format="yuv411p"), 18, ["4:1:1"]),
        (source(pixel_format="rgb24"), 18, ["RGB"]),
        (source(pixel_format="yuva420p"), 18, ["transparency"]),
        (source(pixel_format="rgba"), 0, ["transparency"]),
        (source(pixel_format="yuv420p10le", colour=SDR10), 18, []),
        (source(pixel_format="yuv422p10le", colour=SDR10), 0, ["4:2:2"]),
        (source(pixel_format="yuv444p12le", colour=SDR10), 18, ["4:4:4", "12 bits become 10"]),
        (
            source(pixel_format="yuva444p10le", colour=SDR10),
            18,
            ["transparency", "4:4:4"],
        ),
        (source(pixel_format="yuv420p10le", colour=PQ), 18, ["PQ HDR is kept"]),
        (
            source(pixel_format="yuv420p10le", colour=HLG, dynamic=("Dolby Vision",)),
            18,
            ["HLG HDR is kept", "Dolby Vision's own data is dropped; the HLG picture"],
        ),
        (
            source(pixel_format="yuv420p10le", colour=PQ, dynamic=("HDR10+",)),
            18,
            ["PQ HDR is kept", "HDR10.'s own data"],
        ),
        (source(width=853, height=1519), 18, ["853x1519 becomes 854x1520"]),
        (source(height=1081), 18, ["1920x1081 becomes 1920x1082"]),
        (source(width=853), 0, []),
    ],
)
def test_what_is_lost_is_said_and_nothing_else(info: VideoInfo, crf: float, told: list[str]):
    sentences = what_changes(info, codec="hevc", crf=crf)
    assert len(sentences) == len(told)
    for sentence, part in zip(sentences, told, strict=True):
        assert part.replace("10.'s", "10+'s") in sentence


def test_ten_bits_in_h264_are_warned_of() -> None:
    said = what_changes(source(pixel_format="yuv420p10le", colour=SDR10), codec="h264", crf=18)
    assert said == [
        "few devices play H.264 of 10 bits; encoding.codec=hevc is played by more",
    ]


@pytest.mark.parametrize("transfer", [1, 2, 14])
def test_dolby_vision_without_a_picture_below_it_is_refused(transfer: int) -> None:
    colour = ColourTags(2, True, 2, transfer, depth=10)
    with pytest.raises(ValueError, match="Convert it to HDR10 or SDR"):
        check_source(source(colour=colour, dynamic=("Dolby Vision",)))
    check_source(source(colour=colour))
    check_source(source(colour=PQ, dynamic=("Dolby Vision", "HDR10+")))


@pytest.mark.parametrize(
    ("size", "other", "same"),
    [
        ((853, 1519), (854, 1520), True),
        ((854, 1520), (853, 1519), True),
        ((853, 1520), (854, 1520), True),
        ((853, 1519), (853, 1519), True),
        ((853, 1519), (852, 1518), False),
        ((854, 1520), (856, 1520), False),
        ((854, 1520), (855, 1520), False),
    ],
)
def test_sizes_that_differ_by_the_padding_of_even_sides(
    size: tuple[int, int], other: tuple[int, int], same: bool
) -> None:
    assert is_padded(size, other) is same


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_how_pictures_are_stored(encoder: str) -> None:
    assert pixel_format_for(encoder, 18, SDR8) == "yuv420p"
    assert pixel_format_for(encoder, 0, SDR8) == "yuv444p"
    assert pixel_format_for(encoder, 0, SDR10) == pixel_format_for(encoder, 18, PQ) == "yuv420p10le"


def test_an_encoder_without_ten_bits_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"writes no yuv420p10le .*: use codec h264, install"):
        pixel_format_for("mpeg4", 18, SDR10)
    assert VideoWriter(Path("a.mp4"), fps=25, width=64, height=64, colour=SDR10).yuv.is_halved
