"""Clips of H.264 by a list of their packets: a window is decoded without opening a container.

A list is made once, of a whole clip (`packets_of`), and kept beside it. Reading then needs the
bytes of the packets and a decoder, which all clips of the same parameter sets share: no file is
opened, no header parsed, and frames that no other frame refers to are decoded only when they are
asked for.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Int, Int32, UInt8

from latentsync.media.clip_reader import FrameArrays, PyAvReader, checked_indices
from latentsync.media.colour import UPRIGHT
from latentsync.media.container import describe, find_video, open_media
from latentsync.media.frame import RgbReader

BEGIN, SIZE, SHOWN, KIND = range(4)  # columns of a list
KEY, UNUSED = 1, 2  # kinds: a key frame; a frame that no other frame refers to
MAX_BYTES = 2**31 - 1  # of a clip, as columns are int32
MAX_DECODERS = 4

# H.264, annex of ISO/IEC 14496-10: slice types, and avcC of ISO/IEC 14496-15.
SLICE, PARTITIONS, IDR = 1, (2, 3, 4), 5
AVCC_VERSION, AVCC_LENGTH = 1, 4  # first byte; the byte that holds the size of lengths


@dataclass(frozen=True, slots=True)
class Setup:
    """What a decoder must know before the first packet; equal for clips that were encoded alike."""

    extradata: bytes
    width: int
    height: int
    colours: tuple[int, int, int, int]
    """Matrix, range, primaries and transfer of the container, used where the stream has none."""


@dataclass(frozen=True, eq=False)
class PacketList:
    """The packets of a clip in decoding order.

    Columns of `rows`: first byte in the clip's file, number of bytes, index of the frame, kind.
    """

    setup: Setup
    rows: Int32[np.ndarray, "n 4"]

    @cached_property
    def place_of(self) -> Int[np.ndarray, " n"]:
        """For each frame, in display order, the number of its packet."""
        return np.argsort(self.rows[:, SHOWN])

    @cached_property
    def key_of(self) -> Int[np.ndarray, " n"]:
        """For each packet the number of the last key frame's up to it."""
        keys = (self.rows[:, KIND] & KEY) > 0
        return np.maximum.accumulate(np.where(keys, np.arange(len(keys)), 0))

    def needed(self, frames: Int[np.ndarray, " f"]) -> list[list[int]]:
        """The rows that must be decoded for these frames, in order."""
        places = self.place_of[frames]
        needed: Bool[np.ndarray, " n"] = np.zeros(len(self.rows), bool)
        for key, place in zip(self.key_of[places].tolist(), places.tolist(), strict=True):
            needed[key : place + 1] = True
        needed &= (self.rows[:, KIND] & UNUSED) == 0
        needed[places] = True
        return self.rows[needed].tolist()


def packets_of(path: Path) -> PacketList | None:
    """The list of a clip; None unless it is H.264 in an mp4 that can be decoded by such a list.

    Three frames are compared with those of `PyAvReader`. OSError or ValueError if the clip cannot
    be read.
    """
    reader = PyAvReader(path)
    with open_media(path) as container:
        listed = _listed(container, find_video(container, path), memoryview(path.read_bytes()))
    if listed is None or len(listed.rows) != len(reader):
        return None
    frames = [0, len(reader) // 2, len(reader) - 1]
    by_list = PacketReader(listed, memoryview(path.read_bytes()), Decoders(), name=str(path))
    try:
        same = np.array_equal(by_list.frames(frames), reader.frames(frames))
    except OSError:
        return None
    return listed if same else None


def _listed(
    container: InputContainer, stream: VideoStream, content: memoryview
) -> PacketList | None:
    codec = stream.codec_context
    extradata = bytes(codec.extradata or b"")
    is_avc = codec.name == "h264" and len(extradata) > AVCC_LENGTH and extradata[0] == AVCC_VERSION
    if not is_avc or len(content) > MAX_BYTES:
        return None
    num_bytes = (extradata[AVCC_LENGTH] & 3) + 1
    rows: list[tuple[int, int, int, int]] = []
    times: list[int] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        kind = _kind_of(packet, content, num_bytes)
        if kind is None:
            return None
        assert packet.pos is not None and packet.pts is not None, "or there is no kind"
        rows.append((packet.pos, packet.size, 0, kind))
        times.append(packet.pts)
    begins_whole = rows and rows[0][KIND] & KEY and len({*times}) == len(times)
    if not begins_whole or not _is_upright(container):
        return None
    table = np.array(rows, dtype=np.int32)
    table[np.argsort(np.array(times)), SHOWN] = np.arange(len(times))
    tags = codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc
    matrix, levels, primaries, transfer = map(int, tags)
    setup = Setup(extradata, codec.width, codec.height, (matrix, levels, primaries, transfer))
    return PacketList(setup, table)


def _kind_of(packet: Packet, content: memoryview, num_bytes: int) -> int | None:
    """The kind of a packet that holds one whole picture; None if it is not that simple."""
    held = bytes(packet)
    begin = packet.pos
    if begin is None or packet.pts is None or packet.is_discard or packet.is_corrupt:
        return None
    if packet.has_sidedata("new_extradata") or content[begin : begin + packet.size] != held:
        return None
    slices = []
    at = 0
    while at + num_bytes < len(held):
        length = int.from_bytes(held[at : at + num_bytes], "big")
        header = held[at + num_bytes]
        if not length or header & 31 in PARTITIONS:
            return None
        if header & 31 in (SLICE, IDR):
            slices.append(header)
        at += num_bytes + length
    if at != len(held) or not slices:
        return None
    is_key = all(header & 31 == IDR for header in slices)
    if packet.is_keyframe != is_key:
        return None  # a key frame after which frames may be shown that refer to earlier ones
    is_unused = all(header >> 5 & 3 == 0 for header in slices)
    return KEY * is_key + UNUSED * is_unused


def _is_upright(container: InputContainer) -> bool:
    container.seek(0)
    frame = next(container.decode(video=0), None)
    return frame is not None and RgbReader().orientation_of(frame) == UPRIGHT


class Decoders:
    """Decoders of the last few setups, in use by one reader at a time; a copy has none yet."""

    def __init__(self) -> None:
        self._made: OrderedDict[Setup, VideoCodecContext] = OrderedDict()

    def of(self, setup: Setup) -> VideoCodecContext:
        decoder = self._made.get(setup)
        if decoder is None:
            decoder = self._made[setup] = _decoder_of(setup)
            if len(self._made) > MAX_DECODERS:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(setup)
        return decoder

    def __reduce__(self) -> tuple:
        return Decoders, ()


def _decoder_of(setup: Setup) -> VideoCodecContext:
    decoder = VideoCodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = setup.extradata
    decoder.thread_type, decoder.thread_count = "NONE", 1
    colours = setup.colours
    decoder.colorspace, decoder.color_range = colours[0], colours[1]
    decoder.color_primaries, decoder.color_trc = colours[2], colours[3]
    return decoder


class PacketReader:
    """Random access to the frames of a clip of which the packets are listed: those of `PyAvReader`,
    bit for bit.

    `content` is the clip's file; `decoders` may be shared by readers of one thread.
    """

    def __init__(
        self, packets: PacketList, content: memoryview, decoders: Decoders, *, name: str
    ) -> None:
        self.packets = packets
        self.content = content
        self.decoders = decoders
        self.name = name
        self.arrays = FrameArrays()

    def __len__(self) -> int:
        return len(self.packets.rows)

    def frames(
        self, indices: Sequence[int] | Int[np.ndarray, " f"]
    ) -> UInt8[np.ndarray, "f h w 3"]:
        """The frames at `indices`, in any order; OSError if they cannot be decoded."""
        asked = checked_indices(indices, len(self), self.name)
        setup = self.packets.setup
        made = np.empty((len(asked), setup.height, setup.width, 3), np.uint8)
        slots: dict[int, list[int]] = {}
        for slot, frame in enumerate(asked.tolist()):
            slots.setdefault(frame, []).append(slot)
        for frame in self._decoded(np.fromiter(slots, np.int64)) if slots else ():
            places = slots.pop(frame.pts, None) if frame.pts is not None else None
            if places is None:
                continue
            if (frame.width, frame.height) != (setup.width, setup.height):
                raise OSError(f"{self.name} cannot be decoded: its frames change in size")
            self.arrays.read(frame, made[places[0]])
            made[places[1:]] = made[places[0]]
        if slots:
            raise OSError(f"{self.name} cannot be decoded: frame {min(slots)} does not come out")
        return made

    def _decoded(self, wanted: Int[np.ndarray, " f"]) -> Iterator[VideoFrame]:
        """The wanted frames, and those that they refer to, with their index as time stamp."""
        decoder = self.decoders.of(self.packets.setup)
        try:
            for begin, size, shown, _ in self.packets.needed(wanted):
                # Copies once; PyAV takes any buffer.
                packet = Packet(self.content[begin : begin + size])  # type: ignore[arg-type]
                packet.pts = shown
                yield from decoder.decode(packet)
            yield from decoder.decode(None)
        except av.FFmpegError as error:
            raise OSError(f"{self.name} cannot be decoded: {describe(error)}") from error
        finally:
            decoder.flush_buffers()
