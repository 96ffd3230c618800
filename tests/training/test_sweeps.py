"""Results of a sweep can be read without the program."""

import csv
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from latentsync.cli.sweep import SweepTable
from latentsync.training.callbacks.objective import objective_of
from latentsync.training.sweeps import Run, read_runs, swept_names, write_result, write_sweep

RUNS = [
    Run("0", {"experiment": "a", "lr": "1e-4", "norm": "group"}, "val/loss", 0.5),
    Run("2", {"experiment": "a", "lr": "1e-3", "norm": "layer"}, "val/loss", 0.25),
    Run("10", {"experiment": "a", "lr": "1e-2", "norm": "layer"}, "val/loss", None),
]


def leave_results(folder: Path) -> None:
    for run in RUNS:
        (folder / run.name).mkdir()
        write_result(run, folder / run.name)


def test_results_are_read_as_written_in_the_order_of_the_jobs(tmp_path: Path):
    leave_results(tmp_path)
    (tmp_path / "11").mkdir()  # a failed job leaves no result
    assert read_runs(tmp_path) == RUNS


def test_only_what_differs_is_a_column(tmp_path: Path):
    assert swept_names(RUNS) == ["lr", "norm"]
    leave_results(tmp_path)
    table_path, text_path, picture_path = write_sweep(tmp_path)
    with table_path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["run", "lr", "norm", "val/loss"],
        ["0", "1e-4", "group", "0.5"],
        ["2", "1e-3", "layer", "0.25"],
        ["10", "1e-2", "layer", ""],
    ]
    assert text_path.read_text().splitlines()[2] == "| 0 | 1e-4 | group | 0.5 |"
    assert picture_path.read_bytes().startswith(b"\x89PNG")


def test_hydra_calls_it_with_the_folder_of_the_sweep(tmp_path: Path):
    leave_results(tmp_path)
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert (tmp_path / "table.md").is_file()


def test_a_sweep_of_which_nothing_is_left_has_no_table(tmp_path: Path):
    assert write_sweep(tmp_path) == []


LOGGED = {name: torch.tensor(0.25) for name in ("val/loss", "val/bce", "train/loss")}


def test_the_objective_is_what_was_logged_under_its_name():
    assert objective_of({**LOGGED, "val/bce": torch.tensor(0.5)}, "val/bce") == 0.5


@pytest.mark.parametrize("name", ["val/los", "loss", "train/lss", ""])
def test_an_objective_that_nobody_logs_is_an_error_with_what_there_is(name: str):
    with pytest.raises(ValueError, match=f"objective={name} was not logged.*there are: ") as error:
        objective_of(LOGGED, name)
    assert all(logged in str(error.value) for logged in LOGGED)


def test_a_run_that_never_validated_has_no_objective_of(caplog: pytest.LogCaptureFixture):
    assert objective_of({"train/loss": torch.ones(())}, "val/loss") is None
    assert "before its first validation" in caplog.text
