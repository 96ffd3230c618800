"""Methods that are evaluated: anything that makes a video of a video and a voice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from latentsync.files import aside

PLACEHOLDERS = ("{video}", "{audio}", "{out}")
# What belongs to this program's Python, and would mislead another one's.
OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
LAST_WORDS = 300
POLL_SECONDS = 0.05
KIBIBYTE = 1024


class MethodFailed(ValueError):
    """A method gave no result for a pair."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a result cost: seconds by the clock, and the largest memory where it is known."""

    seconds: float
    peak_bytes: int | None = None


@runtime_checkable
class Method(Protocol):
    """Makes a result of a video and a voice."""

    @property
    def key(self) -> str:
        """What it is; results of another one are not taken for its own."""
        ...

    def __call__(self, video: Path, audio: Path, out: Path) -> Cost:
        """Write `out`; MethodFailed, or any ValueError or OSError, if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class CallMethod:
    """A Python function of `video`, `audio` and `out`, called in this process."""

    key: str
    function: Callable[[Path, Path, Path], object]

    def __call__(self, video: Path, audio: Path, out: Path) -> Cost:
        start = time.perf_counter()
        self.function(video, audio, out)
        return Cost(time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class CommandMethod:
    """A program run for every pair, without a shell, in an environment and a folder of its own.

    `words`: the program and its arguments, with {video}, {audio} and {out} for absolute paths.
    """

    words: tuple[str, ...]
    timeout_seconds: float
    folder: Path | None = None

    def __post_init__(self) -> None:
        text = " ".join(self.words)
        missing = [each for each in PLACEHOLDERS if each not in text]
        if missing:
            raise ValueError(f"method={list(self.words)} lacks {', '.join(missing)}")
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout={self.timeout_seconds} must be positive")
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(f"method_folder={self.folder} is no folder")

    @property
    def key(self) -> str:
        return " ".join(self.words)

    def __call__(self, video: Path, audio: Path, out: Path) -> Cost:
        paths = dict(zip(PLACEHOLDERS, (video, audio, out), strict=True))
        words = [_filled(word, paths) for word in self.words]
        log_path = aside(out.with_suffix(".log"))
        try:
            with log_path.open("wb") as log:
                cost, status = self._run(words, log)
            if status:
                raise MethodFailed(f"exit status {status}: {_last_words(log_path)}")
        finally:
            log_path.unlink(missing_ok=True)
        return cost

    def _run(self, words: Sequence[str], log: object) -> tuple[Cost, int]:
        start = time.perf_counter()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,  # type: ignore[call-overload]
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=_environment(os.environ),
            start_new_session=True,
        )
        try:
            while True:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                seconds = time.perf_counter() - start
                if ended:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    unit = 1 if sys.platform == "darwin" else KIBIBYTE
                    return Cost(seconds, usage.ru_maxrss * unit), process.returncode
                if seconds > self.timeout_seconds:
                    raise MethodFailed(f"no result within {self.timeout_seconds:g} s")
                time.sleep(POLL_SECONDS)
        finally:
            _end(process)


def load_function(name: str) -> CallMethod:
    """The function called `package.module:function`."""
    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise ValueError(
            f"method={name} must be model, package.module:function, or a list of words with "
            f"{', '.join(PLACEHOLDERS)}"
        )
    try:
        found = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"method={name}: {error}; is its folder in PYTHONPATH?") from error
    if not callable(found):
        raise ValueError(f"method={name}: {module} has no function {function}")
    return CallMethod(name, found)


def _filled(word: str, paths: Mapping[str, Path]) -> str:
    for name, path in paths.items():
        word = word.replace(name, str(path.absolute()))
    return word


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in own.items() if name not in OWN_VARIABLES}


def _end(process: subprocess.Popen) -> None:
    """End what the program started and left behind, and itself if it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait()


def _last_words(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    texts = [line.strip() for line in lines if line.strip()]
    return texts[-1][-LAST_WORDS:] if texts else "it said nothing"
