"""A run that is killed again and again ends as one that never was."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import killed
from coded import write_coded_video

pytestmark = pytest.mark.slow

NUM_KILLS = 20


@pytest.fixture(scope="module")
def many_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speakers with several files, one of them silent, one too short, one a copy, one no video."""
    raw = tmp_path_factory.mktemp("many") / "raw"
    for speaker in range(5):
        for number in range(3):
            at = 5 + 4 * number
            loud = range(at, at + 12 + 7 * speaker)
            length = 55 + 90 * (number == 2)
            write_coded_video(raw / f"s{speaker}" / f"{number}.mp4", length, loud=loud)
    write_coded_video(raw / "silent.mp4", 55)
    write_coded_video(raw / "short.mp4", 20, loud=range(5, 15))
    shutil.copy(raw / "s0" / "1.mp4", raw / "t_copy.mp4")
    (raw / "text.mp4").write_text("no video")
    return raw


def run(*words: object) -> int:
    """Number of killed runs, as tests/killed.py says."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, killed.__file__, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(re.findall(r"killed (\d+)", done.stdout)[-1])


def content(folder: Path) -> dict[str, bytes]:
    """Everything but the record, whose order and times are those of the run, the page with its
    pictures by path, and the manifest's second form."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    left_out = ("record.jsonl", "report.html", ".report_pictures.json", "manifest.parquet", ".lock")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name not in left_out
    }


def test_twenty_kills_at_random_moments_leave_no_trace(many_dir: Path, tmp_path: Path) -> None:
    num_killed = run(many_dir, tmp_path, NUM_KILLS, 0)
    assert num_killed >= 3 * NUM_KILLS // 4  # the others had nothing left to do
    whole = content(tmp_path / "unbroken")
    assert content(tmp_path / "broken") == whole
    assert not [name for name in whole if "partial" in name]
    dropped = whole["dropped.jsonl"].decode()
    for stage in ("probe", "sound", "dedupe"):
        assert f'"stage": "{stage}"' in dropped
    assert '"split": "val"' in whole["manifest.jsonl"].decode()


def test_a_killed_pool_goes_on_and_gives_what_one_process_gives(
    many_dir: Path, tmp_path: Path
) -> None:
    assert run(many_dir, tmp_path / "pool") == 1
    killed.prepare(many_dir, tmp_path / "one")
    assert content(tmp_path / "pool") == content(tmp_path / "one")


def test_twenty_ends_of_a_pool_or_of_one_of_its_processes(many_dir: Path, tmp_path: Path) -> None:
    """By SIGKILL of a worker, which ends the run with an error, or of the parent."""
    num_killed = run(many_dir, tmp_path / "pool", NUM_KILLS, 1, "pool")
    assert num_killed >= NUM_KILLS // 2  # the others had nothing left to do
    killed.prepare(many_dir, tmp_path / "one")
    whole = content(tmp_path / "one")
    assert content(tmp_path / "pool") == whole
    assert not [name for name in whole if "partial" in name]
