"""How far a video's path is passed on: a source is opened at the entry point, and few files pass it
on."""

import sys
import threading
from pathlib import Path
from types import FrameType

import latentsync
from latentsync.pipeline import lipsync
from latentsync.pipeline.checks import Source

PACKAGE = Path(latentsync.__file__).parent
MAX_FILES = 18
# Upper layers first, as in pyproject.toml; modules not named here are the lowest layer.
LAYERS = (("cli",), ("app",), ("evaluation",), ("pipeline",), ("models",), ("faces", "media"))


def layer_of(file: str) -> int:
    folder = Path(file).relative_to(PACKAGE).parts[0]
    return next((n for n, names in enumerate(LAYERS) if folder in names), len(LAYERS))


class Trace:
    """Files of the package in which a call receives the video, and calls that pass it to a higher
    layer."""

    def __init__(self, video: Path) -> None:
        self.video = video
        self.files: set[str] = set()
        self.climbs: set[tuple[str, str]] = set()

    def is_video(self, value: object) -> bool:
        return isinstance(value, Source) or (isinstance(value, Path) and value == self.video)

    def hands_on(self, frame: FrameType) -> bool:
        if not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return False
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return any(self.is_video(frame.f_locals.get(name)) for name in names)

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not self.hands_on(frame):
            return
        callee, above = frame.f_code.co_filename, frame.f_back
        self.files.add(callee)
        if above is not None and self.hands_on(above):
            caller = above.f_code.co_filename
            if layer_of(callee) < layer_of(caller):
                self.climbs.add((caller, callee))


def test_few_files_pass_the_video_on_and_none_hands_it_up(
    tmp_path: Path, tiny_model, detector, sampler, video: Path, voice: Path
):
    trace = Trace(video)
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        lipsync(
            video, voice, tmp_path / "out.mp4", model=tiny_model, detector=detector, sampler=sampler
        )
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    files = sorted(str(Path(file).relative_to(PACKAGE)) for file in trace.files)
    assert "pipeline/lipsync.py" in files
    assert "media/frame_reader.py" in files
    assert trace.climbs == set()
    assert len(files) <= MAX_FILES, files
