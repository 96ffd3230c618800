"""Interlaced frames => progressive ones, same number and times.

Only frames flagged as interlaced are changed, by libav's bwdif: it keeps one field and interpolates
the other from the previous, the current and the next frame.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import av
from av.filter import Graph
from av.video.frame import VideoFrame

MODES = ("auto", "off")

MIN_SIDE = 8  # bwdif needs three lines and columns in each plane


class Deinterlacer:
    """Deinterlaces streams and counts the frames changed; mode "off" changes none."""

    def __init__(self, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f"deinterlace={mode} must be one of {', '.join(MODES)}")
        self.mode = mode
        self.num_frames = 0

    def over(
        self, frames: Iterable[VideoFrame], *, from_start: bool = True
    ) -> Iterator[VideoFrame]:
        """The same frames, progressive.

        `from_start`: False if decoding started mid-stream. The first frame, if interlaced, then has
        no predecessor and is dropped.
        """
        if self.mode == "off":
            yield from frames
            return
        weave: _Weave | None = None
        previous: VideoFrame | None = None
        for frame in frames:
            if weave is None and frame.interlaced_frame and _is_large(frame):
                weave = _Weave(frame, previous, drop_first=previous is None and not from_start)
            elif weave is not None and not weave.fits(frame):
                yield from weave.end()
                weave = _Weave(frame, None, drop_first=False) if _is_large(frame) else None
            if weave is None:
                yield frame
            else:
                self.num_frames += frame.interlaced_frame
                yield from weave.push(frame)
            previous = frame
        if weave is not None:
            yield from weave.end()


class _Weave:
    """A filter graph for frames of one size; it lags one frame behind."""

    def __init__(self, like: VideoFrame, previous: VideoFrame | None, *, drop_first: bool) -> None:
        self.kind = _kind(like)
        self.graph = Graph()
        source = self.graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=like.time_base
        )
        bwdif = self.graph.add("bwdif", mode="send_frame", deint="interlaced")
        self.graph.link_nodes(source, bwdif, self.graph.add("buffersink")).configure()
        self.waiting: deque[VideoFrame] = deque()
        self.num_dropped = int(drop_first)
        if previous is not None and _kind(previous) == self.kind:
            # Already output, but needed as neighbour of the next one.
            self.num_dropped += 1
            self._feed(previous)

    def fits(self, frame: VideoFrame) -> bool:
        return _kind(frame) == self.kind

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        self._feed(frame)
        yield from self._pull()

    def end(self) -> Iterator[VideoFrame]:
        self.graph.vpush(None)
        yield from self._pull()

    def _feed(self, frame: VideoFrame) -> None:
        self.waiting.append(frame)
        self.graph.vpush(frame)

    def _pull(self) -> Iterator[VideoFrame]:
        while True:
            try:
                made = self.graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            # The filter doubles the rate of the time base.
            stored = self.waiting.popleft()
            made.time_base, made.pts = stored.time_base, stored.pts
            made.duration = stored.duration
            if self.num_dropped:
                self.num_dropped -= 1
            else:
                yield made


def _kind(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _is_large(frame: VideoFrame) -> bool:
    return min(frame.width, frame.height) >= MIN_SIDE
