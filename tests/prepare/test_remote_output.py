"""A set in a store is that of a run on this machine, also after kills and on other machines."""

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from coded import write_coded_video
from latentsync.data import ClipDataset, Items, read_manifest
from latentsync.data.remote import StoreUnreachable, brief
from latentsync.prepare import (
    Limit,
    adopt,
    check_apart,
    filter_clips,
    prepare_clips,
    working_copy,
    write_shards,
)

BUCKET = "memory://sets"
TIMED = ("record.jsonl", "report.html")  # they say how long it took


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_coded_video(tmp_path / "raw" / "anna.mp4", 55)
    write_coded_video(tmp_path / "raw" / "ben.mp4", 60)
    return tmp_path / "raw"


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/store/my set"
        return
    yield f"{BUCKET}/my set"
    store = fsspec.filesystem("memory")
    if store.exists(BUCKET):
        store.rm(BUCKET, recursive=True)


@pytest.fixture
def run(recipe, raw, url, tmp_path):
    """Prepare the recordings into the store, on one of several machines."""

    def prepare(machine: str = "a", **limits: float) -> Path:
        with working_copy(url, tmp_path / machine) as folder:
            prepare_clips(
                raw,
                folder,
                stages=recipe.stages(),
                limits={name: Limit(min=least) for name, least in limits.items()},
            )
        return folder

    return prepare


@pytest.fixture
def uploads(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files as they are uploaded, and "-NAME" as they are deleted."""
    kind = type(fsspec.core.url_to_fs(url)[0])
    put, remove = kind.put_file, kind.rm_file
    names: list[str] = []

    def put_file(self, path: str, place: str, **more: object) -> None:
        put(self, path, place, **more)
        names.append(place.rpartition("my set/")[2].replace(".uploading-", ""))

    def rm_file(self, place: str) -> None:
        remove(self, place)
        names.extend([f"-{place.rpartition('my set/')[2]}"] * ("uploading" not in place))

    monkeypatch.setattr(kind, "put_file", put_file)
    monkeypatch.setattr(kind, "rm_file", rm_file)
    return names


def stored(url: str) -> dict[str, bytes]:
    store, root = fsspec.core.url_to_fs(url)
    found = store.find(root)
    return {place.removeprefix(f"{root}/"): store.cat_file(place) for place in found}


def local(folder: Path) -> dict[str, bytes]:
    """Files of a set; hidden ones are those of a machine."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def alike(files: dict[str, bytes]) -> dict[str, bytes | None]:
    """Without what differs between two runs because it says how long they took."""
    return {name: None if name in TIMED else content for name, content in files.items()}


def test_the_set_in_the_store_is_that_of_a_run_on_this_machine(
    recipe, raw, url, run, uploads, tmp_path
) -> None:
    prepare_clips(raw, tmp_path / "local", stages=recipe.stages())
    expected = local(tmp_path / "local")
    folder = run()
    assert stored(url) == local(folder)
    assert alike(stored(url)) == alike(expected)
    manifests = ["manifest.jsonl", "manifest.parquet"]
    assert uploads[4:] == [
        "record.jsonl",
        *sorted((*TIMED[1:], "dropped.jsonl", "report.md")),
        *manifests,
    ]
    assert (
        sorted(name.partition("/")[0] for name in uploads[:4]) == ["clips"] * 2 + ["features"] * 2
    )
    uploads.clear()
    run()
    assert uploads == []
    assert stored(url) == local(folder)
    remote = read_manifest(url, cache_dir=tmp_path / "cache")
    one, other = (
        ClipDataset(clips, Items(num_frames=4))[1]
        for clips in (remote, read_manifest(tmp_path / "local"))
    )
    assert (one["pixels"] == other["pixels"]).all()


def test_killed_at_each_upload_and_resumed(url, run, monkeypatch, tmp_path) -> None:
    kind = type(fsspec.core.url_to_fs(url)[0])
    put = kind.put_file
    left, names = [0], []

    def put_file(self, path: str, place: str, **more: object) -> None:
        if not left[0]:
            self.pipe_file(place, Path(path).read_bytes()[:-5])
            raise KeyboardInterrupt
        left[0] -= 1
        names.append(place)
        put(self, path, place, **more)

    monkeypatch.setattr(kind, "put_file", put_file)
    for number in range(10):
        left[0] = number
        with pytest.raises(KeyboardInterrupt):
            run(f"machine {number}")
        there = stored(url)
        here = local(tmp_path / f"machine {number}")
        halves = {name for name, content in there.items() if content != here.get(name)}
        if url.startswith("file"):  # what is not whole has no name that anybody reads
            assert [Path(name).name.startswith(".uploading-") for name in halves] == [True]
        if "manifest.jsonl" in there.keys() - halves:
            rows = [json.loads(line) for line in there["manifest.jsonl"].splitlines()]
            assert {row[name] for row in rows for name in ("clip", "features")} <= there.keys()
        left[0] = 100
        names.clear()
        run(f"machine {number}")
        assert len(names) == 10 - number
        assert stored(url) == local(tmp_path / f"machine {number}")
        fsspec.core.url_to_fs(url)[0].rm(url, recursive=True)


def test_only_what_changed_is_uploaded_and_only_what_was_is_removed(
    recipe, raw, url, run, uploads
) -> None:
    folder = run()
    store, root = fsspec.core.url_to_fs(url)
    foreign = {"notes.txt": b"mine", "clips/other.mp4": b"mine", ".hidden": b"mine"}
    for name, content in foreign.items():
        store.pipe_file(f"{root}/{name}", content)
    uploads.clear()
    with working_copy(url, folder):  # one is too short now
        stages = replace(recipe, min_seconds=2.3).stages()
        adopt(raw, folder, stages)
        prepare_clips(raw, folder, stages=stages)
    assert stored(url) == local(folder) | foreign
    gone = [name for name in uploads if name.startswith("-")]
    assert [name.partition("/")[0] for name in gone] == ["-clips", "-features"]
    assert all("/anna-" in name for name in gone)
    changed = set(uploads) - set(gone)
    assert not any("/" in name for name in changed)  # the other one is the same
    assert changed >= {"record.jsonl", "dropped.jsonl", "manifest.jsonl"}
    assert uploads[-2:] == gone


def test_a_run_on_another_machine_goes_on(url, run, uploads, raw, tmp_path) -> None:
    first = run("a")
    uploads.clear()
    write_coded_video(raw / "carl.mp4", 70)
    second = run("b")
    assert sum(name.startswith(("clips/", "features/")) for name in uploads) == 2  # carl's
    assert stored(url) == local(second)
    write_coded_video(raw / "dora.mp4", 80)
    run("a")  # is behind
    assert stored(url) == local(first)
    assert len(read_manifest(url, cache_dir=tmp_path / "cache")) == 4
    write_coded_video(raw / "emil.mp4", 65)
    uploads.clear()
    with working_copy(url, second):
        assert local(second) == local(first)
    assert uploads == []


def test_latents_of_clips_that_are_others_now_are_gone_everywhere(url, run, raw, tmp_path) -> None:
    """Latents are made of a clip; once it is another one, neither machine keeps or brings them."""
    first = run("a")
    (clip,) = (path.stem for path in first.glob("clips/ben*"))
    latents = f"latents/vae/{clip}.safetensors"
    with working_copy(url, first):
        (first / "latents" / "vae").mkdir(parents=True)
        (first / latents).write_bytes(b"old")
        (first / "latents" / "vae" / "record.jsonl").write_bytes(b"{}\n")
    second = run("b")
    assert local(second)[latents] == b"old"
    write_coded_video(raw / "ben.mp4", 75)
    (second / latents).unlink()
    run("b")
    assert latents not in stored(url)
    (first / "latents" / "own").mkdir()
    (first / latents.replace("vae", "own")).write_bytes(b"old, not uploaded")
    with working_copy(url, first):
        assert not list(first.glob(f"latents/*/{clip}.safetensors"))
        assert "latents/vae/record.jsonl" in local(first)
    assert local(first) == local(second) == stored(url)
    store, root = fsspec.core.url_to_fs(url)
    store.pipe_file(f"{root}/{latents}", b"of a clip that another one follows here")
    with (first / "record.jsonl").open("a") as file:
        file.write('{"item": "ben.mp4 1 1", "clips": []}\n')
    with working_copy(url, first):
        assert latents not in local(first)


def test_two_machines_that_went_on_apart_are_told(url, run, raw, tmp_path) -> None:
    first = run("a")
    run("b")
    write_coded_video(raw / "carl.mp4", 70)
    run("b")
    (raw / "carl.mp4").unlink()
    with (first / "record.jsonl").open("a") as file:
        file.write('{"item": "else", "clips": []}\n')
    with pytest.raises(ValueError, match="were continued apart from each other"):
        run("a")
    assert stored(url) == local(tmp_path / "b")
    shutil.rmtree(first)
    run("a")


def test_other_stages_go_the_same_way(url, run, tmp_path, uploads) -> None:
    run()
    uploads.clear()
    with working_copy(url, tmp_path / "b") as folder:
        write_shards(folder)
    assert uploads == [
        "shards/shard-000000.tar",
        *sorted(["shards/index.safetensors", "shards/record.jsonl"]),
    ]
    whole = read_manifest(url, cache_dir=tmp_path / "cache", shards=True)
    assert len(whole) == 2
    with working_copy(url, tmp_path / "c") as folder:
        filter_clips(folder, {"confidence": Limit()})
        assert len(list(folder.glob("clips/*"))) == 2
        assert (folder / "shards" / "shard-000000.tar").is_file()


def test_after_an_error_nothing_is_uploaded(url, tmp_path, caplog) -> None:
    with pytest.raises(ValueError, match="mine"), working_copy(url, tmp_path / "a") as folder:
        (folder / "record.jsonl").write_text("{}\n")
        raise ValueError("mine")
    assert stored(url) == {}
    assert f"nothing was uploaded: what was made is in {tmp_path / 'a'}" in caplog.text


def test_what_the_store_lost_is_uploaded_again(url, run) -> None:
    folder = run()
    store, root = fsspec.core.url_to_fs(url)
    store.rm(root, recursive=True)
    run()
    assert stored(url) == local(folder)


def test_outputs_that_are_none(raw, tmp_path) -> None:
    cases = [
        ("smb://server/share", "cannot be opened.*smbprotocol"),
        ("s4://bucket/set", "s4://bucket/set cannot be opened: Protocol not known"),
        (f"simplecache::file://{tmp_path}/set", "is a chain of file systems"),
        (f"file://{tmp_path}/work/set", "lie in each other"),
        (f"file://{tmp_path}", "lie in each other"),
    ]
    for url, match in cases:
        with pytest.raises(ValueError, match=match), working_copy(url, tmp_path / "work"):
            pytest.fail("it began")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    for given, output, match in [
        (raw, f"file://{raw}/set", "lies in the input"),
        (raw, f"file://{tmp_path}", "leads into the output"),
        (f"{BUCKET}/raw", f"{BUCKET}/raw/set", "lies in the input"),
        (f"{BUCKET}/set/raw", f"{BUCKET}/set/", "leads into the output"),
    ]:
        with pytest.raises(ValueError, match=match):
            check_apart(given, output)
    check_apart(raw, f"file://{tmp_path}/set")
    check_apart(f"{BUCKET}/raw", f"{BUCKET}/raw2")


def test_a_working_folder_belongs_to_one_address(url, run, tmp_path) -> None:
    run()
    with (
        pytest.raises(ValueError, match=r"is the working folder of .*my set: give"),
        working_copy(f"{url}2", tmp_path / "a"),
    ):
        pytest.fail("it began")


@pytest.mark.parametrize(
    ("error", "kind", "match"),
    [
        (PermissionError("403: no rights"), PermissionError, "must not be written: 403: no rights"),
        (TimeoutError(), StoreUnreachable, r"written in 3 tries: TimeoutError.*same command"),
        (OSError(errno.ENOSPC, "No space left"), OSError, "No space left"),
    ],
)
def test_a_store_that_refuses_is_told_before_the_work(
    url, tmp_path, monkeypatch, error, kind, match
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.core.url_to_fs(url)[0]), "pipe_file", refuse)
    with pytest.raises(kind, match=match), working_copy(url, tmp_path / "a"):
        pytest.fail("it began")
    assert not (tmp_path / "a").exists()


def test_a_store_that_falls_silent_while_uploading(url, run, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.core.url_to_fs(url)[0]), "put_file", fail)
        with pytest.raises(StoreUnreachable, match="in 3 tries: ConnectionError"):
            run()
    folder = run()
    assert stored(url) == local(folder)
    assert brief(ValueError("one\ntwo")) == "one"


def test_a_file_of_the_users_in_the_working_folder_stays_here(url, run) -> None:
    """Beside the set, among its clips, its features and its archives."""
    folder = run()
    (folder / "shards").mkdir()
    own = ("notes.txt", "clips/mine.mp4", "features/mine.safetensors", "shards/mine.tar")
    for name in own:
        (folder / name).write_text("mine")
    run(level_db=-90.0)
    store, root = fsspec.core.url_to_fs(url)
    there = {place.rpartition("my set/")[2] for place in store.find(root)}
    assert "manifest.jsonl" in there
    assert not there & {*own}
    assert all((folder / name).read_text() == "mine" for name in own)
