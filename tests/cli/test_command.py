"""Errors as users see them: one line, exit status 2, suggestions of similar names."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from latentsync import demo_model_dir
from latentsync.cli import command as run
from latentsync.files import publish

TINY = """
defaults:
  - _self_
  - sampler: ddim
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
optimizer: {lr: 1}
video: ???
hydra:
  run: {dir: "."}
  sweep: {dir: "."}
  output_subdir: null
"""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs a task with a command line; returns the exit status and stderr."""
    (tmp_path / "conf" / "sampler").mkdir(parents=True)
    (tmp_path / "conf" / "tiny.yaml").write_text(TINY)
    for name in ("ddim", "dpmpp"):
        (tmp_path / "conf" / "sampler" / f"{name}.yaml").write_text("num_steps: 20\n")
    (tmp_path / "conf" / "faces").mkdir()
    (tmp_path / "conf" / "faces" / "mesh.yaml").write_text("score: 0.5\n")
    monkeypatch.setattr(run, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)

    def start(task: Callable[[DictConfig], object], *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tiny", *words])
        try:
            run.command("tiny")(task)()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return start


def missing_folder(config: DictConfig) -> None:
    with publish(Path("nowhere/out.mp4")) as partial:
        partial.write_text("never")


def missing_file(config: DictConfig) -> None:
    Path("nowhere.mp4").read_bytes()


def interrupted(config: DictConfig) -> None:
    raise KeyboardInterrupt


def bug(config: DictConfig) -> None:
    np.zeros(3).reshape(2)


@pytest.mark.parametrize(
    ("task", "words", "status", "line"),
    [
        (lambda config: None, ["video=a.mp4"], 0, ""),
        (missing_file, ["video=a.mp4"], 2, "error: nowhere.mp4: No such file or directory\n"),
        (lambda config: None, [], 2, "error: video= must be given\n"),
        (interrupted, ["video=a.mp4"], 130, "interrupted\n"),
        (
            lambda config: None,
            ["optimiser.lr=2"],
            2,
            "error: no config value is called 'optimiser.lr'; near: optimizer.lr, optimizer\n",
        ),
        (
            lambda config: None,
            ["sampelr=ddim"],
            2,
            "error: no config value is called 'sampelr'; near: sampler\n",
        ),
        (
            lambda config: None,
            ["sampler=dpm"],
            2,
            "error: no sampler is called 'dpm'; near: dpmpp\n",
        ),
        (
            lambda config: None,
            ["faces=mesh"],
            2,
            "error: configs of the group 'faces' exist, but tiny uses none of them\n",
        ),
    ],
)
def test_the_user_reads_one_line(start, task, words, status, line):
    assert start(task, *words) == (status, line)


def test_what_cannot_be_parsed_is_named(start):
    status, line = start(lambda config: None, "video")
    assert status == 2
    assert line.startswith("error: 'video' is not an override (name=value)")
    assert line.count("\n") == 1


def test_an_error_inside_a_constructor_is_told_as_itself(start):
    def task(config: DictConfig) -> None:
        try:
            Path("nowhere.pt").read_bytes()
        except FileNotFoundError as error:
            raise InstantiationException("Error in call to target 'x.Y'") from error

    assert start(task, "video=a.mp4") == (2, "error: nowhere.pt: No such file or directory\n")


def test_a_bug_keeps_its_traceback(start):
    with pytest.raises(ValueError, match="cannot reshape"):
        start(bug, "video=a.mp4")


def test_full_error_is_respected(start, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(FileNotFoundError):
        start(missing_file)


def test_a_sweep_runs_every_job_although_the_first_fails(start):
    seen = []

    def task(config: DictConfig) -> None:
        seen.append(config.optimizer.lr)
        missing_file(config)

    status, line = start(task, "-m", "optimizer.lr=1,2", "video=a.mp4")
    assert (status, seen) == (2, [1, 2])
    assert line.endswith("error: nowhere.mp4: No such file or directory\n")


def test_conf_and_demo_model_are_found_beside_src():
    root = Path(__file__).parents[2]
    assert run.conf_dir() == root / "conf"
    assert demo_model_dir() == root / "experiments" / "demo" / "model"


def test_an_experiment_that_is_not_there_lists_the_near_ones(start, tmp_path):
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir()
    for name in ("unet_stage1", "unet_stage2", "syncnet"):
        (experiments / f"{name}.yaml").write_text("# @package _global_\n")
    with_group = TINY.replace("  - _self_\n", "  - _self_\n  - experiment: null\n")
    (tmp_path / "conf" / "tiny.yaml").write_text(with_group)
    line = "error: no experiment is called 'unet_stage3'; near: unet_stage2, unet_stage1\n"
    assert start(lambda config: None, "experiment=unet_stage3") == (2, line)


def test_a_name_that_the_terminal_cannot_show_ends_nothing(start, monkeypatch):
    """Characters that it lacks, and bytes that are not valid text."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    task = lambda config: sys.stdout.write("\u6d4b\udcff.mp4")  # noqa: E731
    assert start(task, "video=a.mp4") == (0, "")
    terminal.flush()
    assert terminal.buffer.getvalue() == rb"\u6d4b\udcff.mp4"
