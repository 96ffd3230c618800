import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentsync.files import held, locked, publish


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with publish(path) as partial:
        partial.write_text("whole")
        assert partial.parent == tmp_path
        assert partial.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_there_stays_and_nothing_else_is_left_after_an_error(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(error), publish(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_path_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with publish(path) as first, publish(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_a_folder_is_published_whole(tmp_path: Path) -> None:
    with publish(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "config.json").write_text("{}")
    assert (tmp_path / "model" / "config.json").exists()
    with pytest.raises(RuntimeError), publish(tmp_path / "other") as partial:
        partial.mkdir()
        (partial / "config.json").write_text("{}")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    writing = publish(tmp_path / "nowhere" / "out.txt")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder: create it"), writing:
        pass


@pytest.mark.parametrize(
    "name",
    [
        "a" * 251 + ".mp4",
        "a" * 228 + ".mp4",
        "\u6d4b" * 83 + "a.mp4",
        "\U0001f600" * 62 + "a.mp4",
        "no suffix" * 28,
        "a." + "b" * 253,
        "a" * 245 + ".safetensors"[:10],
    ],
)
def test_a_name_as_long_as_the_disk_takes_can_be_published(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with publish(path) as partial:
        partial.write_text("whole")
        assert len(os.fsencode(partial.name)) <= len(os.fsencode(name))
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a", "a.mp4", "\u6d4b.wav"])
def test_a_short_name_is_written_aside_under_a_short_one(tmp_path: Path, name: str) -> None:
    with publish(tmp_path / name) as first, publish(tmp_path / name) as second:
        first.write_text("")
        second.write_text("")
        assert first != second
        assert max(len(os.fsencode(path.name)) for path in (first, second)) <= 64


def test_a_folder_is_held_by_one_and_goes_when_nothing_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    with locked(folder):
        with pytest.raises(BlockingIOError, match="parts is in use"), locked(folder):
            pass
        assert folder.is_dir(), "it is its owner's"
    assert not folder.exists()
    with locked(folder):
        (folder / "part").write_text("whole")
    assert (folder / "part").read_text() == "whole"


HOLDER = """
import sys, time
from pathlib import Path
from latentsync.files import held, locked
with {hold}(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("hold", [locked, held], ids=["locked", "held"])
def test_a_killed_process_lets_go_of_what_it_held(
    tmp_path: Path, hold: Callable[[Path], AbstractContextManager[None]]
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "part").write_text("half")
    command = [sys.executable, "-c", HOLDER.format(hold=hold.__name__), folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError, match="parts is in use"), hold(folder):
                pass
        finally:
            other.kill()
    with hold(folder):
        assert (folder / "part").read_text() == "half"


def test_holding_a_list_changes_nothing_about_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("video,audio,out\n")
    path.chmod(0o444)
    before = path.stat()
    with held(path):
        assert list(tmp_path.iterdir()) == [path]
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_mode) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_mode,
    )


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def by_tempfile(path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(b"private until now")
    Path(file.name).replace(path)


def in_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    by_tempfile(path / "inner" / "file")
    (path / "plain").write_text("")


WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file({"a": torch.zeros(3)}, path),
    "torch": lambda path: torch.save({"a": 1}, path),
    "text": lambda path: path.write_text("whole"),
    "tempfile": by_tempfile,
    "folder": in_folder,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, umask: int, writer: str) -> None:
    with publish(tmp_path / "out") as partial:
        WRITERS[writer](partial)
    files = [path for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")) if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_rights_that_were_chosen_stay(tmp_path: Path) -> None:
    with publish(tmp_path / "run.sh") as partial:
        partial.write_text("")
        partial.chmod(0o750)
    assert stat.S_IMODE((tmp_path / "run.sh").stat().st_mode) == 0o750
