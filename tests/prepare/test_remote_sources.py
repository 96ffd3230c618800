"""Recordings in a store become the set that they become from a folder of this machine."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from coded import LOUD, write_coded_video
from latentsync.data import read_manifest
from latentsync.data.remote import StoreUnreachable
from latentsync.prepare import LocalExecutor, SerialExecutor, filter_clips, prepare_clips

IN_MEMORY = "memory://recordings/raw"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of one name, a text, an empty file and a hidden one."""
    folder = tmp_path_factory.mktemp("raw") / "raw"
    write_coded_video(folder / "anna" / "1.mp4", 55, loud=LOUD)
    write_coded_video(folder / "ben" / "1.mp4", 60)
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "empty.mp4").touch()
    (folder / ".hidden.mp4").write_text("hidden")
    return folder


@pytest.fixture
def in_memory(raw: Path) -> Iterator[str]:
    store = fsspec.filesystem("memory")
    store.put(f"{raw}/", IN_MEMORY, recursive=True)
    yield IN_MEMORY
    store.rm("memory://recordings", recursive=True)


def contents(folder: Path, source: str) -> dict[str, object]:
    """Lines of the manifest and of the dropped items with `source` for the input, and the bytes of
    all files of clips."""
    lines = {
        name: (folder / name).read_text().replace(source, "RAW").splitlines()
        for name in ("manifest.jsonl", "dropped.jsonl")
    }
    files = sorted((folder / "clips").iterdir()) + sorted((folder / "features").iterdir())
    return lines | {path.name: path.read_bytes() for path in files}


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_every_file_system_gives_the_set_of_the_folder(raw, in_memory, recipe, tmp_path) -> None:
    before = files_of(raw)
    prepare_clips(raw, tmp_path / "local", stages=recipe.stages())
    expected = contents(tmp_path / "local", str(raw))
    assert len(expected["manifest.jsonl"]) == 2
    dropped = [json.loads(line) for line in expected["dropped.jsonl"]]
    assert {row["source"] for row in dropped} >= {"text.mp4", "empty.mp4"}
    inputs = {
        "file": (f"file://{raw}", SerialExecutor()),
        "memory": (in_memory + "/", SerialExecutor()),
        "copied": (f"simplecache::file://{raw}", LocalExecutor(num_workers=2)),
    }
    for name, (url, executor) in inputs.items():
        prepare_clips(url, tmp_path / name, stages=recipe.stages(), executor=executor)
        assert contents(tmp_path / name, url.rstrip("/")) == expected
        assert not list((tmp_path / name).glob(".*.partial*"))
        again = filter_clips(tmp_path / name, {})
        assert contents(tmp_path / name, url.rstrip("/")) == expected
        assert len(again) == 4
    assert files_of(raw) == before


def test_only_what_is_new_or_changed_is_fetched(in_memory, recipe, tmp_path, monkeypatch):
    fetched: list[str] = []
    store = fsspec.filesystem("memory")
    fetch = type(store).get_file

    def counted(self, place: str, target: str, **more: object) -> None:
        fetched.append(place.rpartition("raw/")[2])
        assert not list((tmp_path / "set").glob(".*.partial*"))  # one at a time
        assert Path(target).parent == tmp_path / "set"
        fetch(self, place, target, **more)

    monkeypatch.setattr(type(store), "get_file", counted)
    prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
    assert sorted(fetched) == ["anna/1.mp4", "ben/1.mp4", "empty.mp4", "text.mp4"]
    fetched.clear()
    store.pipe_file(f"{in_memory}/text.mp4", store.cat_file(f"{in_memory}/ben/1.mp4"))
    prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
    assert fetched == ["text.mp4"]
    assert len(read_manifest(tmp_path / "set")) == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("gone"), "it vanished before it was read"),
        (PermissionError("403"), "it must not be read: 403"),
    ],
)
def test_a_recording_that_cannot_be_had_is_dropped(
    in_memory, recipe, tmp_path, monkeypatch, error, reason
) -> None:
    store = fsspec.filesystem("memory")
    fetch = type(store).get_file

    def refuse(self, place: str, target: str, **more: object) -> None:
        if place.endswith("ben/1.mp4"):
            raise error
        fetch(self, place, target, **more)

    monkeypatch.setattr(type(store), "get_file", refuse)
    prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "set")) == 1
    lines = (tmp_path / "set" / "dropped.jsonl").read_text().splitlines()
    dropped = [json.loads(line) for line in lines]
    (ben,) = (row for row in dropped if row["source"] == "ben/1.mp4")
    assert (ben["stage"], ben["reason"]) == ("fetch", reason)


@pytest.mark.parametrize(
    ("error", "kind", "match"),
    [
        (TimeoutError("no answer"), StoreUnreachable, r"in 3 tries: no answer.*same command"),
        (OSError(errno.ENOSPC, "No space left on device"), OSError, "No space left"),
    ],
)
def test_a_store_or_disk_that_fails_ends_the_run_which_goes_on_later(
    in_memory, recipe, tmp_path, monkeypatch, error, kind, match
) -> None:
    store = fsspec.filesystem("memory")

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", fail)
        with pytest.raises(kind, match=match):
            prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
    assert not list((tmp_path / "set").glob(".*.partial*"))
    prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "set")) == 2


def test_inputs_that_are_none(raw, in_memory, recipe, tmp_path) -> None:
    fsspec.filesystem("memory").makedirs("memory://recordings/bare")
    cases = [
        ("memory://nowhere/raw", FileNotFoundError, "memory://nowhere/raw is no folder"),
        ("memory://recordings/bare", FileNotFoundError, "holds no file"),
        (f"{in_memory}/text.mp4", ValueError, "is a file: input= is a folder"),
        (f"file://{tmp_path}", ValueError, "lies in the input file://"),
        (f"file://{tmp_path}/set/sub", ValueError, "leads into the output"),
        ("smb://server/share", ValueError, "smb://server/share cannot be opened.*smbprotocol"),
        ("s4://bucket/raw", ValueError, "s4://bucket/raw cannot be opened: Protocol not known"),
    ]
    (tmp_path / "set" / "sub").mkdir(parents=True)
    for url, kind, match in cases:
        with pytest.raises(kind, match=match):
            prepare_clips(url, tmp_path / "set", stages=recipe.stages())
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["sub"]


def test_a_store_that_must_not_be_listed(in_memory, recipe, tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("403: no rights")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", refuse)
    with pytest.raises(PermissionError, match=f"{IN_MEMORY} must not be listed: 403: no rights"):
        prepare_clips(in_memory, tmp_path / "set", stages=recipe.stages())
