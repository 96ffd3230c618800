"""Detects truncated media files: interrupted downloads and recordings."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

HEAD_BYTES = 1 << 16
# Writers that do not know the size round up and pad the declared duration.
TAIL_SECONDS = 1
# Sizes in the header of a wav written to a pipe; no real wav is truncated to exactly these.
PIPED_SIZES = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
TS_PACKETS = (188, 192, 204)


def is_cut(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    path: Path,
    read_until: Fraction,
) -> bool:
    """Whether the end of the stream is missing; `read_until` is the end of its last packet."""
    if breaks_off(container, stream, path):
        return True
    kinds = container.format.name.split(",")
    if "matroska" in kinds and container.duration is not None and not _has_whole_segment(path):
        return read_until + TAIL_SECONDS < Fraction(container.duration, av.time_base)
    return False


def breaks_off(container: InputContainer, stream: VideoStream | AudioStream, path: Path) -> bool:
    """Whether the sizes declared in the container exceed the file."""
    kinds = container.format.name.split(",")
    if any(ends_early(path) for kind, ends_early in ENDS_EARLY.items() if kind in kinds):
        return True
    return "mov" in kinds and _num_missing(stream, path) > 0


def missing_seconds(
    container: InputContainer, stream: VideoStream | AudioStream, path: Path
) -> Fraction:
    """Seconds missing at the end of the stream, as far as the container shows it.

    Reads packets only if the file is truncated.
    """
    if not breaks_off(container, stream, path):
        return Fraction(0)
    clock = stream.time_base or Fraction(0)
    lost = _num_missing(stream, path)
    if lost:
        entries = stream.index_entries
        return (entries[-1].timestamp - entries[len(entries) - lost].timestamp) * clock
    if container.duration is None:
        return Fraction(0)
    stops = ((packet.pts or 0) + (packet.duration or 0) for packet in _readable(container, stream))
    start = Fraction(0) if "matroska" in container.format.name else (stream.start_time or 0) * clock
    return start + Fraction(container.duration, av.time_base) - max(stops, default=0) * clock


def _num_missing(stream: VideoStream | AudioStream, path: Path) -> int:
    """The number of index entries at the end that lie beyond the end of the file."""
    size, entries = path.stat().st_size, stream.index_entries
    lost = 0
    while lost < len(entries):
        entry = entries[len(entries) - 1 - lost]
        if entry.pos + entry.size <= size:
            break
        lost += 1
    return lost


def _readable(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Packet]:
    """Packets with a time, up to the first read error."""
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.pts is not None:
                yield packet


def has_no_size(container: InputContainer, path: Path) -> bool:
    """Whether the audio has no declared size, as if written to a pipe, and ends with the file."""
    if container.format.name == "wav":
        with path.open("rb") as file:
            file.seek(12)
            for name, size, _ in _chunks(file):
                if name == b"data":
                    return any(size in sizes for sizes in PIPED_SIZES)
        return False
    if container.format.name == "au":
        with path.open("rb") as file:
            return file.read(12)[8:] == b"\xff" * 4
    return False


def _mp3_ends_early(path: Path) -> bool:
    """By the byte count that many encoders store in the first frame."""
    with path.open("rb") as file:
        start = 0
        tag = file.read(10)
        if tag[:3] == b"ID3":
            bits = [byte & 0x7F for byte in tag[6:10]]
            start = 10 + (bits[0] << 21 | bits[1] << 14 | bits[2] << 7 | bits[3])
        file.seek(start)
        head = file.read(HEAD_BYTES)
    frame = max(head.find(b"\xff"), 0)
    at = max(head.find(name, frame, frame + 48) for name in (b"Xing", b"Info"))
    if at < 0 or not head[at + 7] & 2:
        return False
    counted = at + 8 + 4 * (head[at + 7] & 1)
    num_bytes = int.from_bytes(head[counted : counted + 4])
    return start + frame + num_bytes > path.stat().st_size


def _ogg_ends_early(path: Path) -> bool:
    """Only if within a page: radio recordings lack the final page."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - HEAD_BYTES))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _ts_ends_early(path: Path) -> bool:
    return all(path.stat().st_size % size for size in TS_PACKETS)


def _avi_ends_early(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        for name, length, start in _chunks(file, into=(b"RIFF",)):
            if name == b"LIST" and start + length > size:
                file.seek(start)
                return file.read(4) == b"movi"
    return False


def _chunks(file: BinaryIO, *, into: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, int, int]]:
    """Name, length and start of each chunk of a RIFF file; enters the chunks named in `into`."""
    place = file.tell()
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        yield head[:4], length, place + 8
        place += 12 if head[:4] in into else 8 + length + length % 2
        file.seek(place)


def _mp4_ends_early(path: Path) -> bool:
    """Fragmented files only; for others the index shows it."""
    size, place, in_fragments = path.stat().st_size, 0, False
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            length, name = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:])
            if length < 8:
                return False
            in_fragments |= name == b"moof"
            place += length
            if place > size:
                return in_fragments and name in {b"moof", b"mdat"}
            file.seek(place)
    return False


SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
# Elements in clusters: timestamp, blocks, and block groups.
IN_CLUSTERS = frozenset((0xE7, 0xA3, 0xA0, 0xA7, 0xAB))


def _mkv_ends_early(path: Path) -> bool:
    """Only if within a cluster; what follows the last one (the index) is not needed."""
    size = path.stat().st_size
    for name, end in _elements(path):
        if end is None or end > size:
            return name is None or name == CLUSTER or name in IN_CLUSTERS
    return False


def _has_whole_segment(path: Path) -> bool:
    with path.open("rb") as file:
        for name, length, start in _read_elements(file):
            if name == SEGMENT:
                return length is not None and start + length <= path.stat().st_size
    return False


def _elements(path: Path) -> Iterator[tuple[int | None, int | None]]:
    """Name and end of the elements of a Matroska file; enters those of unknown length.

    The name is None if the file ends within a header.
    """
    with path.open("rb") as file:
        for name, length, start in _read_elements(file):
            if name is None:
                yield None, None
            elif name != SEGMENT and length is not None:
                yield name, start + length


def _read_elements(file: BinaryIO) -> Iterator[tuple[int | None, int | None, int]]:
    """Name, length (None: unknown) and start of the data of each element; enters the segment."""
    size = file.seek(0, 2)
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(12)
        name_bytes = _num_bytes(head[0])
        length_bytes = _num_bytes(head[name_bytes]) if len(head) > name_bytes else 0
        if name_bytes > 4 or length_bytes > 8:
            return  # no valid Matroska from here on
        start = place + name_bytes + length_bytes
        if length_bytes == 0 or start > size:
            yield None, None, size
            return
        length = int.from_bytes(head[name_bytes : name_bytes + length_bytes])
        length &= (1 << 7 * length_bytes) - 1
        is_known = length != (1 << 7 * length_bytes) - 1
        name = int.from_bytes(head[:name_bytes])
        yield name, length if is_known else None, start
        place = start if name == SEGMENT or not is_known else start + length


def _num_bytes(first: int) -> int:
    """Length of a number (EBML), which its first byte encodes in leading zeros; 9 if invalid."""
    return 9 - first.bit_length()


ENDS_EARLY: dict[str, Callable[[Path], bool]] = {
    "mp3": _mp3_ends_early,
    "ogg": _ogg_ends_early,
    "mpegts": _ts_ends_early,
    "avi": _avi_ends_early,
    "mov": _mp4_ends_early,
    "matroska": _mkv_ends_early,
}
