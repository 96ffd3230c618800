"""Checks of a run's files, before anything is decoded at length and until the run ends."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self, get_args

from av.container import InputContainer
from av.video.stream import VideoStream

from latentsync.media.container import (
    decode,
    find_video,
    ignore,
    open_media,
    seconds,
    time_zero,
)
from latentsync.media.cut import missing_seconds
from latentsync.media.video import VideoInfo, probe
from latentsync.pipeline.cache import content_hash
from latentsync.pipeline.chunks import Reference
from latentsync.pipeline.outputs import check_free, parts_folder, tidy, written_files

MAX_MISSING_SECONDS = 1
HAVE_AN_INDEX = frozenset(("mov", "matroska", "avi"))
CONTAINERS = (".mp4", ".mov", ".mkv", ".m4v")


@dataclass(frozen=True, slots=True)
class Source:
    """The source video of a run, probed and hashed once at the start."""

    info: VideoInfo
    content_hash: str

    @classmethod
    def of(cls, path: Path) -> Self:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file: check the path")
        return cls(probe(path), content_hash(path))

    @property
    def path(self) -> Path:
        return self.info.path


@dataclass(frozen=True, slots=True)
class _State:
    """Attributes that change when a file is modified or replaced."""

    num_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class Inputs:
    """Checks whether files are unchanged; files that were only touched or moved count as
    unchanged."""

    def __init__(self, *paths: Path) -> None:
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not a file: check the path")
        self.states = {path: _State.of(path) for path in paths}
        self.hashes = {path: content_hash(path) for path in paths}

    def check_still(self, source: Source) -> None:
        """ValueError if the video has changed since it was probed."""
        if self.hashes[source.path] != source.content_hash:
            raise ValueError(
                f"{source.path} changed after it was opened: run the same command again when "
                "nothing writes it"
            )

    def check(self) -> None:
        """ValueError or FileNotFoundError if one of the files has changed."""
        for path, before in self.states.items():
            if not path.exists():
                raise FileNotFoundError(f"{path} was removed while it was read: bring it back")
            now = _State.of(path)
            if now == before:
                continue
            if now.num_bytes != before.num_bytes or content_hash(path) != self.hashes[path]:
                raise ValueError(
                    f"{path} changed while it was read, from {before.num_bytes} to "
                    f"{now.num_bytes} bytes: run the same command again when nothing writes it"
                )
            self.states[path] = now

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Check after the block; if the block failed and a file has changed, raise that error
        instead."""
        try:
            yield
        except (ValueError, OSError):
            self.check()
            raise
        self.check()


def check_paths(video: Path | Source, audio: Path, out: Path, *, overwrite: bool) -> Source:
    """Check all paths and open the video; raises if the run cannot succeed."""
    given = video.path if isinstance(video, Source) else video
    for path in (given, audio):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
    if out.suffix.lower() not in CONTAINERS:
        raise ValueError(f"out={out} must end in one of {', '.join(CONTAINERS)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out={out}: the folder {out.parent} does not exist; make it first")
    check_names_fit(out)
    for path in (given, audio):
        if out.exists() and out.samefile(path):
            raise ValueError(f"out={out} is the input {path} itself; choose another name")
    tidy(out)
    check_free(out, overwrite=overwrite)
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"out={out}: the folder {out.parent} is not writable") from error
    if isinstance(video, Source):
        return video
    source = Source.of(video)
    check_decodes(source.info)
    return source


def check_names_fit(out: Path) -> None:
    """ValueError if the name of `out`, or of a file written next to it, is too long for the file
    system."""
    written = (*written_files(out), parts_folder(out))
    longest = max((os.fsencode(path.name) for path in written), key=len)
    most = os.pathconf(out.parent, "PC_NAME_MAX")
    if len(longest) > most:
        raise ValueError(
            f"out={out}: a name in this folder has {most} bytes at most, and beside it "
            f"{os.fsdecode(longest)} of {len(longest)} would be written; choose one that is "
            f"{len(longest) - most} bytes shorter"
        )


def check_choices(*, crf: float, reference: str) -> None:
    if not 0 <= crf <= 51:
        raise ValueError(f"crf={crf} must lie between 0 (lossless) and 51")
    if reference not in get_args(Reference):
        raise ValueError(f"reference={reference} must be one of {', '.join(get_args(Reference))}")


def check_decodes(video: VideoInfo) -> None:
    """ValueError if the video's last second is missing or nothing near its end can be decoded."""
    with open_media(video.path) as container:
        stream = find_video(container, video.path)
        missing = missing_seconds(container, stream, video.path)
        if missing <= MAX_MISSING_SECONDS and shows_its_end(container, stream, video):
            return
    raise ValueError(
        f"{video.path} should last {video.duration_seconds:.2f} s but ends earlier; "
        "it is truncated or damaged: copy it again, or cut it to the part that plays"
    )


def shows_its_end(container: InputContainer, stream: VideoStream, video: VideoInfo) -> bool:
    """Whether a frame can be decoded at the start of the last second, or from the key frame before
    it.

    True for containers without an index, which cannot seek there.
    """
    if HAVE_AN_INDEX.isdisjoint(container.format.name.split(",")):
        return True
    last = max(0.0, video.duration_seconds - MAX_MISSING_SECONDS)
    start = time_zero(container, stream) + Fraction(last)
    container.seek(int(start / seconds(1, stream)), stream=stream)
    shown = decode(container, stream, video.path, on_spot=ignore, on_cut=ignore)
    return next(shown, None) is not None


def count_frames(audio: Path, seconds: float, fps: float) -> int:
    """Number of video frames that last as long as the audio; ValueError if there are none."""
    num_frames = round(seconds * fps)
    if num_frames == 0:
        raise ValueError(f"{audio} lasts {seconds:.3f} s, which is less than a frame of video")
    return num_frames
