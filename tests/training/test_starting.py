"""Where a training run starts: from scratch, from its last checkpoint, or not at all."""

from pathlib import Path

import pytest

from latentsync.cli.train import start_from
from latentsync.training.callbacks.checkpoints import give_second_name


def with_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


USED = ("checkpoints/0000500.ckpt", "checkpoints/last.ckpt", "csv/version_0/metrics.csv")


@pytest.mark.parametrize(
    ("names", "ckpt_path", "begins"),
    [
        ((), None, None),
        (("syncnet_doctor.md", "config.yaml"), None, None),
        (("csv/version_0/metrics.csv", "hpc_ckpt_1.ckpt"), None, None),
        (USED, "last", "checkpoints/last.ckpt"),
        (USED, "auto", "checkpoints/last.ckpt"),
        ((), "auto", None),
        (("csv/version_0/hparams.yaml",), None, None),
        # Killed between the checkpoint and its second name.
        (
            ("checkpoints/0000500.ckpt", "checkpoints/0001000.ckpt"),
            "last",
            "checkpoints/0001000.ckpt",
        ),
        (("checkpoints/0000500.ckpt",), "auto", "checkpoints/0000500.ckpt"),
        (("csv/version_0/metrics.csv",), "auto", None),
    ],
)
def test_it_begins(tmp_path: Path, names, ckpt_path, begins):
    run_dir = with_files(tmp_path / "run", *names)
    expected = None if begins is None else str(run_dir / begins)
    assert start_from(ckpt_path, run_dir) == expected


@pytest.mark.parametrize(
    ("names", "remedy"),
    [(USED, "go on with it"), (USED[:1], "go on with it"), (USED[2:], "begin it anew there")],
)
def test_a_folder_takes_one_run_and_the_remedy_works(tmp_path: Path, names, remedy):
    run_dir = with_files(tmp_path / "run", *names)
    with pytest.raises(ValueError, match=rf"run holds a run already: {remedy} by ckpt_path=auto"):
        start_from(None, run_dir)
    assert (start_from("auto", run_dir) is None) == (remedy == "begin it anew there")


def test_a_checkpoint_of_another_run_begins_one_in_an_empty_folder_only(tmp_path: Path):
    theirs = with_files(tmp_path / "theirs", *USED) / USED[0]
    assert start_from(str(theirs), tmp_path / "new") == str(theirs)
    used = with_files(tmp_path / "used", *USED)
    assert start_from(str(used / USED[0]), used) == str(used / USED[0])
    with pytest.raises(ValueError, match="used holds a run already"):
        start_from(str(theirs), used)


@pytest.mark.parametrize("ckpt_path", ["last", "nowhere.ckpt", "checkpoints/0000500.ckpt"])
def test_there_must_be_something_to_go_on_from(tmp_path: Path, ckpt_path: str):
    with pytest.raises(FileNotFoundError, match=rf"ckpt_path={ckpt_path}: .*to go on from"):
        start_from(ckpt_path, tmp_path / "run")


def test_a_second_name_replaces_the_file_of_that_name_at_once(tmp_path: Path):
    old, new, last = (tmp_path / name for name in ("old", "new", "last"))
    old.write_text("old")
    new.write_text("new")
    give_second_name(old, last)
    give_second_name(new, last)
    old.unlink()
    assert last.read_text() == "new"
    assert last.samefile(new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "new"]
