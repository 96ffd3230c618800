"""Methods run over a list: failures are counted, finished pairs are not done again."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latentsync.evaluation.methods import (
    CallMethod,
    CommandMethod,
    MethodFailed,
    load_function,
)
from latentsync.evaluation.pair_list import (
    COLUMNS,
    Task,
    read_list,
    task_of,
    write_list,
)
from latentsync.evaluation.run_method import RUNS_NAME, run_method
from latentsync.evaluation.setting import CROSS, RECONSTRUCTION
from latentsync.files import sha256_of

COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[3])"


def command(code: str, timeout: float = 60, folder: Path | None = None) -> CommandMethod:
    words = (sys.executable, "-c", code, "{video}", "{audio}", "{out}")
    return CommandMethod(words, timeout, folder)


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Three pairs of files, which no method here looks into."""
    folder = tmp_path / "list of pairs"
    folder.mkdir()
    made = []
    for name in "abc":
        video, audio = folder / f"{name}.mp4", folder / f"{name}.wav"
        video.write_text(f"picture of {name}")
        audio.write_text(f"sound of {name}")
        made.append(task_of(name, video, audio, speaker=name, setting=RECONSTRUCTION))
    return made


def test_a_list_reads_back_as_written_and_moves_with_its_folder(
    tasks: list[Task], tmp_path: Path
) -> None:
    folder = tasks[0].video.parent
    write_list(folder / "list.csv", tasks)
    assert read_list(folder / "list.csv") == tasks
    shutil.move(folder, tmp_path / "moved")
    moved = read_list(tmp_path / "moved" / "list.csv")
    assert [task.why_changed() for task in moved] == [None] * 3
    assert moved[0].video == tmp_path / "moved" / "a.mp4"


def test_files_given_from_the_working_folder_are_found_from_a_list_elsewhere(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = [
        replace(
            task,
            video=task.video.relative_to(tmp_path),
            audio=task.audio.relative_to(tmp_path),
        )
        for task in tasks
    ]
    (tmp_path / "measured" / "drawn").mkdir(parents=True)
    for path in (Path("measured/drawn/list.csv"), tmp_path / "measured" / "drawn" / "list.csv"):
        write_list(path, near)
        assert [task.why_changed() for task in read_list(path)] == [None] * 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reconstruction", "dubbed", "the setting of a is 'dubbed', and must be reconstruction or"),
        ("\nb,", "\na,", "'a' is no name of its own"),
        ("\nb,", "\n../b,", "'../b' is no name of its own"),
        ("name,", "clip,", "has no column name"),
    ],
)
def test_a_list_that_cannot_be_is_refused(
    tasks: list[Task], old: str, new: str, message: str
) -> None:
    path = tasks[0].video.parent / "list.csv"
    write_list(path, tasks)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_list(path)


def test_an_empty_list_and_none(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ValueError, match="lists no pair"):
        read_list(tmp_path / "list.csv")
    with pytest.raises(FileNotFoundError, match="give a list of pairs"):
        read_list(tmp_path / "other.csv")


def test_every_pair_is_run_once_and_failures_are_tried_again(
    tasks: list[Task], tmp_path: Path
) -> None:
    called = []

    def copies(video: Path, audio: Path, out: Path) -> None:
        called.append(video.stem)
        if video.stem == "b" and called.count("b") == 1:
            raise RuntimeError("out of\nmemory")
        shutil.copy(audio, out)

    method = CallMethod("copies", copies)
    first = {each.task.name: each for each in run_method(method, tasks, tmp_path / "out")}
    assert {name: each.failed for name, each in first.items()} == {
        "a": None, "b": "RuntimeError: out of memory", "c": None,
    }  # fmt: skip
    again = list(run_method(method, tasks, tmp_path / "out"))
    assert called == ["a", "b", "c", "b"]
    assert [each.failed for each in again] == [None] * 3
    assert [each.path.read_text() for each in again] == [f"sound of {name}" for name in "abc"]
    assert again[0].cost == first["a"].cost
    # A line that was being written when the program was killed.
    runs = tmp_path / "out" / RUNS_NAME
    runs.write_text(runs.read_text() + '{"name": "c", "met')
    assert [each.failed for each in run_method(method, tasks, tmp_path / "out")] == [None] * 3
    assert len(called) == 4


def test_results_of_another_method_are_refused(tasks: list[Task], tmp_path: Path) -> None:
    list(run_method(CallMethod("one", lambda video, audio, out: out.touch()), tasks, tmp_path))
    with pytest.raises(ValueError, match="has results of 'one', and method is 'two' now"):
        list(run_method(CallMethod("two", shutil.copy), tasks, tmp_path))


def test_a_file_that_is_not_the_list_s_is_a_failure(tasks: list[Task], tmp_path: Path) -> None:
    tasks[0].video.write_text("another picture")
    tasks[1].audio.unlink()
    method = CallMethod("copy", lambda video, audio, out: shutil.copy(video, out))
    failed = [each.failed for each in run_method(method, tasks, tmp_path / "out")]
    assert "a.mp4 is not the file of the list" in failed[0]
    assert "b.wav does not exist" in failed[1]
    assert failed[2] is None
    assert [path.name for path in (tmp_path / "out" / "results").iterdir()] == ["c.mp4"]


def test_a_command_gets_absolute_paths_and_no_shell(tasks: list[Task], tmp_path: Path) -> None:
    out = tmp_path / "$(echo x); out.mp4"
    cost = command(COPY)(tasks[0].video, tasks[0].audio, out)
    assert out.read_text() == "picture of a"
    assert 0 < cost.seconds < 60
    assert cost.peak_bytes > 2**20


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit(3)", "exit status 3: it said nothing"),
        ("raise KeyError('no mouth')", "exit status 1: KeyError: 'no mouth'"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
        ("pass", "it wrote no file"),
        ("import sys; open(sys.argv[3], 'w')", "it wrote no file"),
        ("import sys, time; open(sys.argv[3], 'w').write('x'); time.sleep(60)", "within 2 s"),
    ],
)
def test_what_a_command_fails_with_is_said(
    tasks: list[Task], tmp_path: Path, code: str, reason: str
) -> None:
    (result,) = run_method(command(code, timeout=2), tasks[:1], tmp_path / "out")
    assert reason in result.failed
    assert result.path is None
    assert list((tmp_path / "out" / "results").iterdir()) == []
    (row,) = map(json.loads, (tmp_path / "out" / RUNS_NAME).read_text().splitlines())
    assert row["failed"] == result.failed


def test_a_command_has_an_environment_and_a_folder_of_its_own(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("KEPT", "yes")
    code = (
        "import os, sys; open(sys.argv[3], 'w').write("
        "os.getcwd() + ' ' + os.environ.get('PYTHONPATH', 'none') + ' ' + os.environ['KEPT'])"
    )
    out = tmp_path / "out.mp4"
    command(code, folder=tmp_path)(tasks[0].video, tasks[0].audio, out)
    assert out.read_text() == f"{tmp_path} none yes"


def test_what_a_command_left_running_is_ended(tasks: list[Task], tmp_path: Path) -> None:
    # The child would write after its parent has ended.
    code = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', \"import time; time.sleep(1); "
        f"open({str(tmp_path / 'late')!r}, 'w')\"]); open(sys.argv[3], 'w').write('x')"
    )
    command(code)(tasks[0].video, tasks[0].audio, tmp_path / "out.mp4")
    command("import time; time.sleep(1.5); import sys; open(sys.argv[3], 'w').write('x')")(
        tasks[0].video, tasks[0].audio, tmp_path / "other.mp4"
    )
    assert not (tmp_path / "late").exists()


def test_what_cannot_be_a_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks \{audio\}, \{out\}"):
        CommandMethod(("run", "{video}"), 10)
    with pytest.raises(ValueError, match="timeout=0 must be positive"):
        command(COPY, timeout=0)
    with pytest.raises(FileNotFoundError, match="method_folder="):
        command(COPY, folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must be model, package"):
        load_function("modl")
    with pytest.raises(ValueError, match="is its folder in PYTHONPATH"):
        load_function("no_such_module:run")
    with pytest.raises(ValueError, match="has no function run"):
        load_function("shutil:run")
    assert load_function("shutil:copy").function is shutil.copy
    with pytest.raises(MethodFailed):
        command("import sys; sys.exit(1)")(tmp_path, tmp_path, tmp_path / "out.mp4")


def test_hashes_are_those_of_everybody(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    task = task_of("x", tmp_path / "x", tmp_path / "x", speaker="s", setting=CROSS, condition="c")
    assert task.why_changed() is None
