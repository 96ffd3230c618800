"""Writes a long video in parts, so that a killed run can resume after the last complete part."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.packet import Packet
from jaxtyping import Int64, UInt8

from latentsync.files import publish
from latentsync.media.container import find_video, open_media, seconds, time_zero
from latentsync.media.frame import Picture
from latentsync.media.segments import (
    SETTINGS,
    Part,
    part_files,
    part_name,
    read_json,
    remove_parts,
    whole_parts,
)
from latentsync.media.soundtrack import CopyAudio, Soundtrack
from latentsync.media.timeline import round_half_up
from latentsync.media.writer import ENCODERS, VideoWriter, create_video, mux


class PartsWriter:
    """Writes frames into encoded parts in a folder, then joins them into `out`.

    The folder must not be written by others meanwhile: hold it with `files.locked`. Each part is
    self-contained and appears only once complete, with a json next to it. On entering, complete
    parts of an earlier run with the same `key` and settings are kept (`is_resumed`), and frames
    continue at `next_entry`; those of other runs are removed. Leaving before `finish_at` drops the
    open part. A part has `entries_per_part` frames, so a resumed run writes the same parts.
    `new_writer`: creates the `VideoWriter` of a part's path, with all settings except audio,
    including `time_base` (seconds per tick of the frames' starts).
    """

    def __init__(
        self,
        out: Path,
        folder: Path,
        new_writer: "partial[VideoWriter]",
        *,
        key: str,
        entries_per_part: int = 250,
    ) -> None:
        if entries_per_part < 1:
            raise ValueError(f"entries_per_part must be 1 or more, got {entries_per_part}")
        self.out, self.folder, self.key = out, folder, key
        self.new_writer, self.entries_per_part = new_writer, entries_per_part
        self.time_base: Fraction = new_writer.keywords["time_base"]
        # Raises for wrong settings now.
        self.encoder = self.new_writer(folder / part_name(0)).encoder
        self.finished: list[Part] = []
        self.open: _OpenPart | None = None
        self.is_resumed = False
        self.is_complete = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.is_resumed = self._keep_own()
            self.finished = whole_parts(self.folder)
            stack.push(self._drop_open)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    @property
    def next_entry(self) -> int:
        """Index of the frame to write next; after entering, the number of frames already there."""
        started = 0 if self.open is None else self.open.writer.num_frames
        return started + (self._last.first + self._last.num_entries if self.finished else 0)

    def write(self, frame: UInt8[np.ndarray, "h w 3"] | Picture, start: Fraction) -> None:
        """Append an RGB frame or picture shown from `start` seconds of the output."""
        tick = round_half_up(start / self.time_base)
        if self.open is not None and self.open.writer.num_frames == self.entries_per_part:
            self._close(tick)
        if self.open is None:
            expected = self._last.end if self.finished else 0
            if tick != expected:
                raise ValueError(
                    f"frame {self.next_entry} of {self.out} must start at "
                    f"{float(expected * self.time_base):.6f} s, where the one before ends; got "
                    f"{float(start):.6f} s"
                )
            path = self.folder / part_name(self.next_entry)
            self.open = _OpenPart(self.new_writer(path), self.next_entry, tick)
        self.open.writer.write(frame, (tick - self.open.start) * self.time_base)

    def finish_at(self, end: Fraction) -> None:
        """Mark the output complete, with the end of the last frame in seconds."""
        tick = round_half_up(end / self.time_base)
        if self.open is not None:
            self._close(tick)
        if not self.finished:
            raise ValueError(f"no frame was written to {self.out}: there is nothing to save")
        if self._last.end != tick:
            raise ValueError(
                f"the last frame of {self.out} was written to end at "
                f"{float(self._last.end * self.time_base):.6f} s, got {float(end):.6f} s"
            )
        self.is_complete = True

    def join(
        self,
        *,
        audio: Path | None = None,
        audio_seconds: float | None = None,
        copy_audio: CopyAudio = "auto",
        into: Path | None = None,
    ) -> None:
        """Write `into`, or `out`: the packets of all parts unchanged, and the audio."""
        if not self.is_complete:
            raise ValueError(f"{self.out} has no end yet: call finish_at before join")
        with ExitStack() as stack:
            partial_path = stack.enter_context(publish(into or self.out))
            target = stack.enter_context(create_video(partial_path, self.out, self.encoder))
            with open_media(self.folder / self.finished[0].name) as first:
                template = find_video(first, self.folder)
                video = target.add_stream_from_template(template, opaque=True)
                video.time_base = self.time_base
                video.codec_context.framerate = self.new_writer.keywords["fps"]
                if self.encoder == ENCODERS["hevc"]:
                    video.codec_context.codec_tag = "hvc1"
            sound = None
            if audio is not None:
                sound = Soundtrack(
                    target, audio, stack, limit_seconds=audio_seconds, copy=copy_audio
                )
            for packet in self._packets():
                packet.stream = video
                mux(target, [packet], self.out)
                if sound is not None:
                    mux(target, sound.until(seconds(packet.pts or 0, packet)), self.out)
            if sound is not None:
                mux(target, sound.until(None), self.out)

    def remove(self) -> None:
        """Remove the parts, and the folder if it is then empty."""
        remove_parts(self.folder)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
        self.finished = []
        self.is_complete = False

    @property
    def _last(self) -> Part:
        return self.finished[-1]

    def _close(self, end: int) -> None:
        assert self.open is not None, "there is a part to close"
        part, self.open = self.open, None
        self.finished.append(part.close(end, self.time_base))

    def _drop_open(self, *_: object) -> None:
        if self.open is not None:
            self.open.drop()
            self.open = None

    def _keep_own(self) -> bool:
        """Whether the parts there have our settings; if not, remove them and store our settings."""
        settings = {
            "key": self.key,
            "entries_per_part": self.entries_per_part,
            # Parts of different encoder versions would not fit each other's headers.
            "libraries": {name: list(number) for name, number in av.library_versions.items()},
            **{name: str(value) for name, value in self.new_writer.keywords.items()},
        }
        path = self.folder / SETTINGS
        if path.exists() and read_json(path) == settings:
            return True
        for stale in part_files(self.folder):
            stale.unlink()
        with publish(path) as partial_path:
            partial_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return False

    def _packets(self) -> Iterator[Packet]:
        """All packets with times of the output, in ticks.

        Decoding times are recomputed: an encoder's own begin before the first frame of its part, so
        parts with varying frame durations would overlap.
        """
        decoded = np.concatenate([self._starts(part) for part in self.finished])
        shown = np.sort(decoded)
        rank = np.searchsorted(shown, decoded)
        delay = int((np.arange(len(rank)) - rank).max())
        stops = np.append(shown[1:], self._last.end)
        usual = int(stops[0] - shown[0])
        index = 0
        for part in self.finished:
            for packet in _read_packets(self.folder / part.name):
                packet.time_base = self.time_base
                packet.pts = int(decoded[index])
                packet.duration = int(stops[rank[index]] - shown[rank[index]])
                behind = index - delay
                packet.dts = int(shown[behind]) if behind >= 0 else int(shown[0]) + behind * usual
                yield packet
                index += 1

    def _starts(self, part: Part) -> Int64[np.ndarray, " n"]:
        """Starts of a part's frames in ticks of the output, in decoding order."""
        path = self.folder / part.name
        with open_media(path) as container:
            stream = find_video(container, path)
            zero = time_zero(container, stream)
            ticks = [
                (seconds(packet.pts or 0, packet) - zero) / self.time_base
                for packet in container.demux(stream)
                if packet.size
            ]
        assert len(ticks) == part.num_entries, "a whole part holds all its frames"
        assert all(tick.denominator == 1 for tick in ticks), "an mp4 keeps ticks exactly"
        return part.start + np.array([int(tick) for tick in ticks], np.int64)


class _OpenPart:
    """A part being written."""

    def __init__(self, writer: VideoWriter, first: int, start: int) -> None:
        self.writer, self.first, self.start = writer.__enter__(), first, start

    def close(self, end: int, time_base: Fraction) -> Part:
        self.writer.finish_at((end - self.start) * time_base)
        self.writer.__exit__(None, None, None)
        path = self.writer.path
        part = Part(self.first, self.writer.num_frames, self.start, end, path.stat().st_size)
        with publish(path.with_suffix(".json")) as partial_path:
            partial_path.write_text(json.dumps(asdict(part)) + "\n", encoding="utf-8")
        return part

    def drop(self) -> None:
        dropped = GeneratorExit()
        self.writer.__exit__(type(dropped), dropped, None)


def _read_packets(path: Path) -> Iterator[Packet]:
    with open_media(path) as container:
        for packet in container.demux(find_video(container, path)):
            if packet.size:
                yield packet
