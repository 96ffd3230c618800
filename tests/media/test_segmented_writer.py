import os
import shutil
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.colour import ColourTags
from latentsync.media.frame_reader import read_times
from latentsync.media.segmented_writer import PartsWriter
from latentsync.media.video import VideoWriter, read_frames
from media.sources import SIZE, index_of, shade, shades, tone, write_media

TICK = Fraction(1, 1000)
NUM_FRAMES = 70


def uneven(index: int) -> Fraction:
    return TICK * (index * 33 + (index * 7) % 13)


def steady(index: int) -> Fraction:
    return Fraction(1001 * index, 30000)


CLOCKS = {
    "uneven": (uneven, TICK, Fraction(30)),
    "steady": (steady, Fraction(1001, 30000), Fraction(30000, 1001)),
}
END = {name: start(NUM_FRAMES) for name, (start, _, _) in CLOCKS.items()}


def parts_writer(path: Path, clock: str = "uneven", **options) -> PartsWriter:
    _, time_base, fps = CLOCKS[clock]
    own = {"key": "plan 1", "entries_per_part": 16}
    own |= {name: options.pop(name) for name in own if name in options}
    video = {"fps": fps, "time_base": time_base, "width": SIZE, "height": SIZE, **options}
    return PartsWriter(path, path.parent / "parts", partial(VideoWriter, **video), **own)


def write(writer: PartsWriter, until: int, clock: str = "uneven") -> None:
    for index in range(writer.next_entry, until):
        writer.write(shade(index), CLOCKS[clock][0](index))


def packets(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.size]


def told_rates(path: Path) -> tuple[Fraction | None, Fraction | None]:
    """The frame rates reported to players: the container's and the codec's guess."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, stream.guessed_rate


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.mkv", "h264"), ("a.mp4", "hevc")]
)
def test_joined_parts_have_the_times_of_a_file_written_in_one_go(
    tmp_path: Path, clock: str, name: str, codec: str
) -> None:
    start, time_base, fps = CLOCKS[clock]
    once = tmp_path / f"once_{name}"
    with VideoWriter(
        once, fps=fps, time_base=time_base, width=SIZE, height=SIZE, codec=codec
    ) as writer:
        for index in range(NUM_FRAMES):
            writer.write(shade(index), start(index))
        writer.finish_at(END[clock])
    joined = tmp_path / name
    with parts_writer(joined, clock, codec=codec) as parts:
        write(parts, NUM_FRAMES, clock)
        parts.finish_at(END[clock])
        parts.join()
    expected, times = read_times(once), read_times(joined)
    assert times.time_base == expected.time_base
    np.testing.assert_array_equal(times.starts, expected.starts)
    # libx265's own decoding times shorten the last frame of an uneven file by some milliseconds.
    slack = 1 / fps / times.time_base if codec == "hevc" else 0
    assert abs(times.end - expected.end) <= slack
    assert [index_of(frame) for frame in read_frames(joined)] == list(range(NUM_FRAMES))
    if clock == "steady" or name.endswith(".mkv"):  # mp4 stores its own average rate
        assert told_rates(joined) == told_rates(once)
    if name.endswith(".mp4"):  # Matroska has millisecond times and no decoding times
        assert [tick * times.time_base for tick in times.starts.tolist()] == [
            start(index) for index in range(NUM_FRAMES)
        ]
        assert times.end * times.time_base == END[clock]
        shown, decoded = zip(*packets(joined), strict=True)
        assert list(decoded) == sorted(set(decoded))
        assert all(dts <= pts for pts, dts in zip(shown, decoded, strict=True))


def test_no_packet_is_encoded_twice(tmp_path: Path) -> None:
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, NUM_FRAMES)
        parts.finish_at(END["uneven"])
        parts.join()
        files = sorted((tmp_path / "parts").glob("*.mp4"))
        pieces = []
        for path in (*files, tmp_path / "a.mp4"):
            with av.open(str(path)) as container:
                pieces.append([bytes(packet) for packet in container.demux(video=0)])
    assert len(files) == 5
    assert [packet for piece in pieces[:-1] for packet in piece if packet] == [
        packet for packet in pieces[-1] if packet
    ]


def test_a_killed_run_goes_on_after_its_last_whole_part(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    whole.mkdir()
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, 40)
        # The files on disk in the middle of a part are what kill -9 would leave.
        shutil.copytree(tmp_path / "parts", killed / "parts")
    resumed_at = []
    for folder in (killed, whole):
        with parts_writer(folder / "a.mp4") as parts:
            resumed_at.append(parts.next_entry)
            write(parts, NUM_FRAMES)
            parts.finish_at(END["uneven"])
            parts.join()
    assert resumed_at == [32, 0]
    assert (killed / "a.mp4").read_bytes() == (whole / "a.mp4").read_bytes()


def test_killed_between_the_end_and_the_join(tmp_path: Path) -> None:
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, NUM_FRAMES)
        parts.finish_at(END["uneven"])
    with parts_writer(tmp_path / "a.mp4") as parts:
        assert parts.next_entry == NUM_FRAMES
        with pytest.raises(ValueError, match=r"a\.mp4 was written to end at 2\.319.* got 2\.4"):
            parts.finish_at(Fraction(24, 10))
        parts.finish_at(END["uneven"])
        parts.join()
        parts.remove()
    assert len(list(read_frames(tmp_path / "a.mp4"))) == NUM_FRAMES
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    "other", [{"key": "plan 2"}, {"crf": 20}, {"entries_per_part": 8}, {"colour": ColourTags(5)}]
)
def test_another_runs_parts_are_not_used(tmp_path: Path, other: dict) -> None:
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, 40)
    with parts_writer(tmp_path / "a.mp4", **other) as parts:
        assert parts.next_entry == 0
        assert not list((tmp_path / "parts").glob("part-*"))


@pytest.mark.parametrize("lost", ["part-00000016.json", "part-00000016.mp4"])
@pytest.mark.parametrize("cut", [True, False])
def test_what_follows_a_lost_part_is_written_again(tmp_path: Path, lost: str, cut: bool) -> None:
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, 60)
    path = tmp_path / "parts" / lost
    if cut:
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    with parts_writer(tmp_path / "a.mp4") as parts:
        assert parts.next_entry == 16
        write(parts, NUM_FRAMES)
        parts.finish_at(END["uneven"])
        parts.join()
    assert [index_of(f) for f in read_frames(tmp_path / "a.mp4")] == list(range(NUM_FRAMES))


def test_an_error_keeps_the_whole_parts_only(tmp_path: Path) -> None:
    def fail() -> None:
        with parts_writer(tmp_path / "a.mp4") as parts:
            write(parts, 40)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    names = [path.name for path in (tmp_path / "parts").glob("*.mp4")]
    assert sorted(names) == ["part-00000000.mp4", "part-00000016.mp4"]


def test_wrong_use(tmp_path: Path) -> None:
    with parts_writer(tmp_path / "a.mp4") as parts:
        with pytest.raises(ValueError, match="nothing to save"):
            parts.finish_at(Fraction(1))
        with pytest.raises(ValueError, match="call finish_at before join"):
            parts.join()
        with pytest.raises(ValueError, match=r"frame 0 of .*a\.mp4 must start at 0\.000000 s"):
            parts.write(shade(0), Fraction(1))
    with pytest.raises(ValueError, match="entries_per_part must be 1 or more, got 0"):
        parts_writer(tmp_path / "a.mp4", entries_per_part=0)


@pytest.mark.parametrize("copied", [True, False])
def test_sound_is_joined_in_time(tmp_path: Path, copied: bool) -> None:
    silence = np.zeros((1, 48_000), np.float32)
    source = write_media(
        tmp_path / "in.mp4", shades(25), sound=np.hstack([silence, tone(1, 48_000)])
    )
    with parts_writer(tmp_path / "a.mp4") as parts:
        write(parts, NUM_FRAMES)
        parts.finish_at(END["uneven"])
        parts.join(audio=source, audio_seconds=1.5, copy_audio=copied)
    waveform = read_waveform(tmp_path / "a.mp4")
    assert int((waveform.abs() > 0.1).nonzero()[0]) / 16000 == pytest.approx(1, abs=0.02)
    assert len(waveform) / 16000 == pytest.approx(1.5, abs=0.05)
    assert read_times(tmp_path / "a.mp4").seconds == pytest.approx(float(END["uneven"]))
