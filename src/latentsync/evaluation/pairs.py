"""Pairs the files of a folder of results with those of a folder of references."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from latentsync.evaluation.setting import AUTO
from latentsync.files import visible_files
from latentsync.media.video import probe


@dataclass(frozen=True, slots=True)
class Pair:
    """A result and its reference.

    `speaker`: pairs of one resemble each other; `condition`: a group with figures of its own;
    `voice`: the sound that is spoken with, beside whose file may lie the truth of drawn clips.
    """

    pred: Path
    ref: Path
    setting: str = AUTO
    speaker: str = ""
    condition: str = ""
    voice: Path | None = None

    @property
    def name(self) -> str:
        return self.pred.name


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be measured, and why."""

    name: str
    reason: str

    def as_row(self) -> dict[str, object]:
        """A line of pairs.jsonl."""
        return {"pred": self.name, "failed": self.reason}


@dataclass(frozen=True, slots=True)
class Found:
    """The pairs of two folders; `passed_over`: names of files that are no videos and in no pair."""

    pairs: list[Pair]
    failed: list[Failed]
    passed_over: list[str]


def find_pairs(pred_dir: Path, ref_dir: Path) -> Found:
    """Every file of `pred_dir` with the one of the same stem in `ref_dir`; a video that only one
    of them has is a failure.

    Videos are recognised by content, not by suffix; hidden files are ignored. If several files
    share a stem, such as a video and its report, the videos among them count.
    """
    results, references = (
        _by_stem(name, folder) for name, folder in (("pred", pred_dir), ("ref", ref_dir))
    )
    if not results:
        raise FileNotFoundError(f"pred={pred_dir} holds no file")
    found = Found([], [], [])
    for stem, paths in results.items():
        beside = references.get(stem)
        if beside is None:
            _without_namesake(paths, found)
            continue
        for path in _videos_among(paths) if len(paths) > 1 else paths:
            match = _match(path, beside)
            if isinstance(match, Pair):
                found.pairs.append(match)
            else:
                found.failed.append(match)
    if not found.pairs and not found.failed:
        first = next(iter(results.values()))[0].name
        raise ValueError(
            f"no file of pred={pred_dir} has a namesake in ref={ref_dir}, first: {first}"
        )
    # A method that gave no result for a clip has failed on it.
    found.failed.extend(
        Failed(path.name, f"pred={pred_dir} has no result for it")
        for stem in references.keys() - results.keys()
        for path in references[stem]
        if is_video(path)
    )
    found.failed.sort(key=lambda each: each.name)
    return found


def _without_namesake(paths: list[Path], found: Found) -> None:
    for path in paths:
        if is_video(path):
            found.failed.append(Failed(path.name, "there is no reference of this name"))
        else:
            found.passed_over.append(path.name)


def is_video(path: Path) -> bool:
    """Whether a file has more than one picture."""
    try:
        return path.is_file() and probe(path).num_frames > 1
    except (ValueError, OSError):
        return False


def _by_stem(name: str, folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}={folder} is no folder")
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in visible_files(folder):
        if path.parent == folder:
            stems[path.stem].append(path)
    return stems


def _videos_among(paths: list[Path]) -> list[Path]:
    """The videos among several files; if there are none, all, so that each reports its error."""
    return [path for path in paths if is_video(path)] or paths


def _match(path: Path, beside: list[Path]) -> Pair | Failed:
    same = [other for other in beside if other.name == path.name]
    candidates = same or (_videos_among(beside) if len(beside) > 1 else beside)
    if len(candidates) > 1:
        names = ", ".join(other.name for other in candidates)
        return Failed(path.name, f"several references have its name: {names}")
    for each in (path, candidates[0]):
        if not each.is_file():
            return Failed(path.name, f"{each} is no regular file")
    return Pair(path, candidates[0])
