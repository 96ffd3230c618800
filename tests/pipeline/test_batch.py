"""Lists of jobs: what is run, what is run again, and that failures stop only themselves."""

import csv
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from latentsync.pipeline import lipsync
from latentsync.pipeline.batch import Row, read_rows, run_jobs, status_path
from latentsync.pipeline.reporting.report import Report
from pipeline.inputs import write_voice


def report_of(row: Row) -> Report:
    return Report(
        video=str(row.video),
        audio=str(row.audio),
        out=str(row.out),
        model="m",
        model_format={},
        sampler={},
        seed=1,
        reference="self",
        crf=18,
        source_fps=25.0,
        fps=25.0,
        num_frames=50,
        num_frames_with_face=40,
        video_seconds=2.0,
        audio_seconds=2.0,
        skipped=[],
        stage_seconds={},
        total_seconds=1.0,
        peak_memory_mib=1.0,
    )


class Copies:
    """A lip-sync that copies the audio's bytes to `out`, and fails if the audio says so."""

    def __init__(self) -> None:
        self.done: list[Row] = []

    def __call__(self, row: Row) -> Report:
        self.done.append(row)
        text = row.audio.read_text()
        if text == "bad":
            raise ValueError("this voice is\nbad")
        if text == "bug":
            raise ZeroDivisionError("oh")
        if text == "stop":
            raise KeyboardInterrupt
        row.out.write_text(text)
        return report_of(row)

    def outs(self) -> list[str]:
        names = [row.out.name for row in self.done]
        self.done.clear()
        return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "face.mp4").write_text("face")
    for name in "abc":
        (tmp_path / f"{name}.wav").write_text(name)
    return tmp_path


def write_list(folder: Path, *lines: str) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def three(folder: Path) -> Path:
    rows = (f"face.mp4,{name}.wav,{name}.mp4" for name in "abc")
    return write_list(folder, "video,audio,out", *rows)


def statuses(list_path: Path) -> list[str]:
    with status_path(list_path).open(newline="") as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_every_row_is_done_once(folder: Path):
    path, work = three(folder), Copies()
    run_jobs(path, work)
    assert work.outs() == ["a.mp4", "b.mp4", "c.mp4"]
    assert [(folder / f"{name}.mp4").read_text() for name in "abc"] == ["a", "b", "c"]
    assert statuses(path) == ["done"] * 3
    run_jobs(path, work)
    assert work.outs() == []
    assert statuses(path) == ["done"] * 3


def test_a_list_in_a_folder_whose_name_is_no_utf8_is_done_once(folder: Path):
    strange = folder / os.fsdecode(b"caf\xe9")
    strange.mkdir()
    for path in folder.glob("*.*"):
        path.rename(strange / path.name)
    (strange / "b.wav").write_text("bug")
    path, work = three(strange), Copies()
    assert [state.status for state in run_jobs(path, work)] == ["done", "failed", "done"]
    assert "caf\\xe9" in status_path(path).read_text(encoding="utf-8")
    (strange / "b.wav").write_text("b")
    work.outs()
    run_jobs(path, work)
    assert work.outs() == ["b.mp4"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda folder: (folder / "b.wav").write_text("other"), ["b.mp4"]),
        (lambda folder: (folder / "face.mp4").write_text("other"), ["a.mp4", "b.mp4", "c.mp4"]),
        (lambda folder: (folder / "c.mp4").unlink(), ["c.mp4"]),
        (lambda folder: (folder / "a.wav").touch(), []),
    ],
    ids=["audio", "video", "out", "time"],
)
def test_only_what_changed_is_done_again(folder: Path, change, again: list[str]):
    path, work = three(folder), Copies()
    run_jobs(path, work)
    work.outs()
    change(folder)
    run_jobs(path, work)
    assert all(row.overwrite for row in work.done)
    assert work.outs() == again


def test_other_options_or_settings_are_other_work(folder: Path):
    work = Copies()
    header = "video,audio,out,seed,preset"
    both = ["face.mp4,a.wav,a.mp4,1,", "face.mp4,b.wav,b.mp4,2,best"]
    path = write_list(folder, header, *both)
    run_jobs(path, work, settings="x")
    assert [row.options for row in work.done] == [{"seed": "1"}, {"seed": "2", "preset": "best"}]
    work.outs()
    # Rows may move within the list.
    write_list(folder, header, both[1].replace("best", "fast"), both[0])
    run_jobs(path, work, settings="x")
    assert work.outs() == ["b.mp4"]
    run_jobs(path, work, settings="y")
    assert work.outs() == ["b.mp4", "a.mp4"]


@pytest.mark.parametrize("trouble", ["bad", "bug", None])
def test_a_failure_stops_only_itself_and_is_tried_again(
    folder: Path, trouble: str | None, caplog: pytest.LogCaptureFixture
):
    path, work, voice = three(folder), Copies(), folder / "b.wav"
    if trouble is None:
        voice.unlink()
    else:
        voice.write_text(trouble)
    with caplog.at_level(logging.ERROR):
        states = run_jobs(path, work)
    assert statuses(path) == ["done", "failed", "done"]
    assert (
        states[1].message
        == {
            "bad": "this voice is bad",
            "bug": "ZeroDivisionError: oh",
            None: f"{voice} is not a file",
        }[trouble]
    )
    # Bugs are logged with a traceback, user errors are not.
    assert bool(caplog.records[0].exc_info) == (trouble == "bug")
    work.outs()
    voice.write_text("mended")
    run_jobs(path, work)
    assert work.outs() == ["b.mp4"]
    assert statuses(path) == ["done"] * 3


def test_a_foreign_file_is_not_written_over_unless_asked(folder: Path):
    path, work = three(folder), Copies()
    foreign = folder / "b.mp4"
    foreign.write_text("mine")
    for _ in range(2):
        states = run_jobs(path, work)
        assert (states[1].status, foreign.read_text()) == ("failed", "mine")
    assert f"{foreign} exists" in states[1].message
    run_jobs(path, work, overwrite=True)
    assert foreign.read_text() == "b"


def test_ctrl_c_ends_the_list_and_is_said(folder: Path):
    path, work = three(folder), Copies()
    (folder / "b.wav").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        run_jobs(path, work)
    assert statuses(path) == ["done", "stopped", "waiting"]
    (folder / "b.wav").write_text("b")
    work.outs()
    run_jobs(path, work)
    assert work.outs() == ["b.mp4", "c.mp4"]


def test_after_a_kill_the_list_goes_on(folder: Path):
    path = three(folder)
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from latentsync.pipeline.batch import run_jobs
        from pipeline.test_batch import report_of
        def one(row):
            row.out.write_text("half")
            if row.out.name == "b.mp4":
                os.kill(os.getpid(), signal.SIGKILL)
            return report_of(row)
        run_jobs(Path(sys.argv[1]), one)
    """)
    here = os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])
    killed = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "PYTHONPATH": here},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert statuses(path) == ["done", "running", "waiting"]
    work = Copies()
    run_jobs(path, work)
    # The file at b.mp4 is the killed run's and may be replaced.
    assert [(row.out.name, row.overwrite) for row in work.done] == [
        ("b.mp4", True),
        ("c.mp4", False),
    ]
    assert statuses(path) == ["done"] * 3


def test_two_runs_do_not_share_a_list(folder: Path):
    path, work = three(folder), Copies()

    def meanwhile(row: Row) -> Report:
        with pytest.raises(ValueError, match="another run is working on this list"):
            run_jobs(path, Copies())
        return work(row)

    run_jobs(path, meanwhile)
    assert statuses(path) == ["done"] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "video, audio, out is missing"),
        ("video,out\na,b\n", "audio is missing; it names video, out"),
        ("video,audio,out\n", "has no rows"),
        ("video,audio,out,out\na,b,c,d\n", "'out' must stand there once"),
        ("video,audio,out,\na,b,c,d\n", "'' must stand there once"),
        ("video,audio,out\na,b\n", "line 2: 2 cells for 3 columns"),
        ("video,audio,out\n\na,,c\n", "line 3: audio is empty"),
        ("video,audio,out\na,b,c\nd,e,./c\n", "lines 2 and 3 both write"),
        ('video,audio,out\n"a,b,c\n', "unexpected end of data"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_whole(folder: Path, text: str, said: str):
    path, work = write_list(folder), Copies()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"list\.csv") as refused:
        run_jobs(path, work)
    assert said in str(refused.value)
    assert work.outs() == []
    assert not status_path(path).exists()


def test_a_list_that_is_not_there_or_not_text_is_named(folder: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        run_jobs(folder / "none.csv", Copies())
    path = write_list(folder)
    path.write_bytes("video,audio,out\n\xe9,b,c\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        run_jobs(path, Copies())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheet_programs_are_read(folder: Path, delimiter: str):
    path = folder / "list.csv"
    lines = [["audio", "video", "out", "seed"], ['"a;b,c\t.wav"', "face.mp4", "x/o.mp4", ""]]
    text = "\r\n".join(delimiter.join(line) for line in lines) + "\r\n" + delimiter * 3 + "\r\n"
    path.write_text("\ufeff" + text, encoding="utf-8", newline="")
    (row,) = read_rows(path)
    assert row == Row(2, folder / "face.mp4", folder / "a;b,c\t.wav", folder / "x/o.mp4")


def test_a_status_of_something_else_is_refused(folder: Path):
    path = three(folder)
    status_path(path).write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="remove it"):
        run_jobs(path, Copies())


def test_real_jobs_share_a_model(tmp_path, video, tiny_model, detector, sampler):
    for name, seconds in (("a", 0.6), ("b", 0.02), ("c", 0.7)):
        write_voice(tmp_path / f"{name}.wav", seconds)
    rows = (f"{video},{name}.wav,{name}.mp4" for name in "abc")
    path = write_list(tmp_path, "video,audio,out", *rows)
    (tmp_path / "b.wav").write_text("not a sound")

    def one(row: Row) -> Report:
        parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
        return lipsync(row.video, row.audio, row.out, overwrite=row.overwrite, **parts)

    states = run_jobs(path, one)
    assert [state.status for state in states] == ["done", "failed", "done"]
    assert "b.wav" in states[1].message
    assert (tmp_path / "a.mp4").is_file() and (tmp_path / "c.mp4").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "b.mp4"))]
