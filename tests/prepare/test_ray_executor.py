"""Ray prepares what one process prepares, also when workers are killed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from latentsync.prepare import AlignedSegment, SerialExecutor, Stage, prepare_clips

pytest.importorskip("ray")

from latentsync.prepare.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


@dataclass(kw_only=True)
class KillsItsProcess:
    """Once for every flag file there is, at sources of a name."""

    name: ClassVar[str] = "kills"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = AlignedSegment

    source: str
    flags: str

    def run(self, aligned: AlignedSegment) -> Iterator[AlignedSegment]:
        flag = next(Path(self.flags).iterdir(), None)
        if flag is not None and aligned.source.name == self.source:
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        yield aligned


def content(folder: Path) -> dict[str, bytes]:
    names = ["manifest.jsonl", "dropped.jsonl", "report.md"]
    features = sorted((folder / "features").iterdir())
    return {path.name: path.read_bytes() for path in [*(folder / n for n in names), *features]}


@pytest.fixture
def stages(recipe, tmp_path) -> list[Stage]:
    """With one that kills processes, `tmp_path / "flags"` permitting."""
    (tmp_path / "flags").mkdir()
    *before, last = recipe.stages()
    kills = KillsItsProcess(source="ben/00001.mp4", flags=str(tmp_path / "flags"))
    return [*before, kills, last]


def test_ray_gives_what_one_process_gives_and_lost_workers_cost_nothing(
    raw_dir, stages, tmp_path, caplog
) -> None:
    prepare_clips(raw_dir, tmp_path / "one", stages=stages, executor=SerialExecutor())
    ray = RayExecutor(num_workers=2)
    prepare_clips(raw_dir, tmp_path / "ray", stages=stages, executor=ray)
    assert content(tmp_path / "ray") == content(tmp_path / "one")
    for number in range(2):
        (tmp_path / "flags" / str(number)).touch()
    prepare_clips(raw_dir, tmp_path / "killed", stages=stages, executor=ray)
    assert not list((tmp_path / "flags").iterdir())
    assert caplog.text.count("which is tried again") == 2
    assert content(tmp_path / "killed") == content(tmp_path / "one")
    assert not list((tmp_path / "killed").rglob(".*partial*"))


def test_a_recording_that_kills_every_worker_ends_the_run_which_goes_on_later(
    raw_dir, stages, tmp_path
) -> None:
    for number in range(3):
        (tmp_path / "flags" / str(number)).touch()
    prepare = partial(prepare_clips, raw_dir, stages=stages)
    with pytest.raises(OSError, match=r"2 workers were lost at .*ben/00001\.mp4"):
        prepare(tmp_path / "set", executor=RayExecutor(num_workers=1, max_retries=1))
    prepare(tmp_path / "set", executor=RayExecutor(num_workers=1))
    prepare(tmp_path / "one", executor=SerialExecutor())
    assert content(tmp_path / "set") == content(tmp_path / "one")


def fails(item: int) -> int:
    raise ValueError(f"no weights for {item}")


def always_fails() -> object:
    return fails


def test_an_error_of_the_work_arrives_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^no weights for 7$"):
        list(RayExecutor(num_workers=1).run(always_fails, [7]))


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers is 0"):
        RayExecutor(num_workers=0)
