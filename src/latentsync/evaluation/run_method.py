"""Runs a method on every pair of a list; what ended it before, it goes on with the next pair."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from latentsync.evaluation.methods import Cost, Method, MethodFailed
from latentsync.evaluation.pair_list import Task
from latentsync.evaluation.report import append_line
from latentsync.files import aside
from latentsync.media.container import UNREADABLE
from latentsync.prepare.stage import UNEXPECTED

RUNS_NAME = "runs.jsonl"
RESULTS = "results"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What a method made of a pair: a file and its cost, or why there is none."""

    task: Task
    path: Path | None
    cost: Cost | None = None
    failed: str | None = None


def run_method(method: Method, tasks: Sequence[Task], out: Path) -> Iterator[Result]:
    """The result of each pair in turn; those of an earlier run of this method are taken over."""
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    done = finished(out / RUNS_NAME, method)
    for task in tqdm(tasks, desc="method", unit="pair"):
        path = out / RESULTS / f"{task.name}.mp4"
        cost = done.get(_identity(task))
        if cost is not None and path.is_file():
            yield Result(task, path, cost)
            continue
        result = run_one(method, task, path)
        append_line(out / RUNS_NAME, _row(method, result), first=False)
        if result.failed is not None:
            log.warning("%s has no result: %s", task.name, result.failed)
        yield result


def run_one(method: Method, task: Task, path: Path) -> Result:
    """The result of one pair; what fails is said and does not end the list."""
    changed = task.why_changed()
    if changed is not None:
        return Result(task, None, failed=changed)
    partial = aside(path)
    try:
        cost = method(task.video, task.audio, partial)
        if not partial.is_file() or not partial.stat().st_size:
            raise MethodFailed("it wrote no file")
        partial.replace(path)
    except (*UNREADABLE, *UNEXPECTED, ImportError, MemoryError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return Result(task, None, failed=kind + " ".join(str(error).split()))
    finally:
        for left in path.parent.glob(f"{partial.stem}*"):
            left.unlink()
    return Result(task, path, cost)


def finished(path: Path, method: Method) -> dict[str, Cost]:
    """The costs of the pairs that have a result; ValueError if another method made them."""
    if not path.is_file():
        return {}
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _read(line)
        if row is None:
            continue
        if row["method"] != method.key:
            raise ValueError(
                f"{path} has results of {row['method']!r}, and method is {method.key!r} now: "
                "name another out="
            )
        if row["failed"] is None:
            done[row["identity"]] = Cost(row["seconds"], row["peak_bytes"])
    return done


def costs_by_name(path: Path) -> dict[str, Cost]:
    """The cost of every pair that has a result."""
    rows = map(_read, path.read_text(encoding="utf-8").splitlines())
    return {
        row["name"]: Cost(row["seconds"], row["peak_bytes"])
        for row in rows
        if row is not None and row["failed"] is None
    }


def _read(line: str) -> dict | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # killed while it was written
        return None


def _row(method: Method, result: Result) -> dict[str, object]:
    cost = result.cost
    return {
        "name": result.task.name,
        "method": method.key,
        "identity": _identity(result.task),
        "failed": result.failed,
        "seconds": None if cost is None else cost.seconds,
        "peak_bytes": None if cost is None else cost.peak_bytes,
    }


def _identity(task: Task) -> str:
    return f"{task.name} {task.video_sha256} {task.audio_sha256}"
