"""A sweep with failed runs: they become rows, the others are kept, and the command reports it."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from latentsync.cli import command as run
from latentsync.cli import sweep
from latentsync.training.sweeps import Run, write_result

CONF = """
defaults:
  - _self_
  - override hydra/launcher: {launcher}
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
lr: 1
objective: val/loss
hydra:
  run: {{dir: "."}}
  sweep: {{dir: "swept", subdir: "${{hydra.job.num}}"}}
  output_subdir: null
  callbacks: {{sweep_table: {{_target_: latentsync.cli.sweep.SweepTable}}}}
"""


def task(config: DictConfig) -> float:
    """A run of a sweep that succeeds or fails in one of several ways, depending on its value."""
    if config.lr == 2:
        raise ValueError("lr=2 is too much | really\nfar")
    if config.lr == 3:
        Path("nowhere").read_text()
    if config.lr == 4:
        raise RuntimeError("out of memory")
    if config.lr == 5:
        sys.exit(3)
    if config.lr == 6:
        os._exit(9)
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = sweep.overrides_of(HydraConfig.get().overrides.task)
    write_result(Run(folder.name, overrides, config.objective, config.lr / 10), folder)
    return config.lr / 10


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Runs a sweep with a launcher; returns the exit status and stderr."""
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(run, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.chdir(tmp_path)

    def start(launcher: str, *words: str) -> tuple[int, str]:
        (tmp_path / "conf" / "tiny.yaml").write_text(CONF.format(launcher=launcher))
        monkeypatch.setattr(sys, "argv", ["tiny", "-m", *words])
        try:
            sweep.reports_failed_runs(run.command("tiny")(task))()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return start


def table(tmp_path: Path) -> list[list[str]]:
    with (tmp_path / "swept" / "table.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("values", "failed", "reason"),
    [
        ("2,1", {"0"}, "lr=2 is too much"),
        ("1,2", {"1"}, "lr=2 is too much"),
        ("1,3,7", {"1"}, "nowhere: No such file or directory"),
        ("4,1,2", {"0", "2"}, "out of memory"),
        ("2,3,4", {"0", "1", "2"}, "lr=2 is too much"),
    ],
)
def test_failed_runs_are_rows_and_cost_no_other(
    start, tmp_path: Path, values: str, failed: set[str], reason: str
):
    status, told = start("basic", f"lr={values}")
    count = len(values.split(","))
    assert status == 2
    line = told.splitlines()[-1]
    assert line.startswith(f"error: {len(failed)} of {count} runs failed, first: run {min(failed)}")
    assert reason in line
    head, *rows = table(tmp_path)
    assert head == ["run", "lr", "val/loss", "failed"]
    assert [row[1] for row in rows] == values.split(",")
    assert {row[0] for row in rows if row[3]} == failed
    assert [row[2] for row in rows if not row[3]] == [
        f"{int(value) / 10:g}" for value in values.split(",") if value in "17"
    ]
    lines = (tmp_path / "swept" / "table.md").read_text().splitlines()
    assert len(lines) == 2 + count  # no message breaks its row
    assert reason in "".join(lines)


def test_a_batch_that_fails_does_not_end_the_next(start, tmp_path: Path):
    status, _ = start("basic", "lr=2,1,7", "hydra.sweeper.max_batch_size=1")
    assert status == 2
    assert [row[2] for row in table(tmp_path)[1:]] == ["", "0.1", "0.7"]


def test_a_sweep_that_ends_well_says_nothing(start, tmp_path: Path):
    status, told = start("basic", "lr=1,7")
    assert (status, told) == (0, "")
    assert table(tmp_path)[0] == ["run", "lr", "val/loss"]


def test_a_sweep_that_ends_midway_leaves_what_it_had(start, tmp_path: Path):
    status, _ = start("basic", "lr=1,5,7")  # the second exits the whole program
    assert status == 3
    head, first, second = table_with_began(tmp_path)
    assert head == ["run", "lr", "val/loss", "failed"]
    assert first == ["0", "1", "0.1", ""]
    assert second == ["1", "5", "", sweep.UNFINISHED]


def table_with_began(tmp_path: Path) -> list[list[str]]:
    from latentsync.training.sweeps import write_sweep

    write_sweep(tmp_path / "swept")
    return table(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from latentsync.cli import command as run
from latentsync.cli import sweep
from cli.test_sweep import task

run.conf_dir = lambda: Path("conf").resolve()
sweep.reports_failed_runs(run.command("tiny")(task))()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "status", "errors"),
    [
        ("1,2,7", 2, ["", "lr=2 is too much", ""]),
        ("1,6", 1, ["", sweep.UNFINISHED]),  # its process is killed at once
    ],
)
def test_runs_beside_each_other(tmp_path: Path, values: str, status: int, errors: list[str]):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "tiny.yaml").write_text(CONF.format(launcher="joblib"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT, "-m", f"lr={values}", "hydra.launcher.n_jobs=2"]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert ended.returncode == status, ended.stderr
    head, *rows = table_with_began(tmp_path)
    assert head[-1] == "failed"
    # A run still queued when the pool broke has no row.
    told = {int(row[0]): row[3] for row in rows}
    assert all(error in told[number] for number, error in enumerate(errors) if error)
