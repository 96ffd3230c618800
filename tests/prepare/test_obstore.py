"""obstore, as of s3://, with a store in memory instead of the cloud."""

from pathlib import Path

import pytest

from coded import write_coded_video
from latentsync.data import read_manifest
from latentsync.prepare import prepare_clips, working_copy


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {name: path.read_bytes() for path, name in names.items() if not name.startswith(".")}


def test_what_is_listed_without_protocol_is_found(recipe, tmp_path, monkeypatch):
    obstore = pytest.importorskip("obstore.fsspec")
    memory = pytest.importorskip("obstore.store").MemoryStore()
    make = obstore.FsspecStore._construct_store
    monkeypatch.setattr(
        obstore.FsspecStore,
        "_construct_store",
        lambda self, bucket: memory if bucket else make(self, bucket),
    )
    raw = tmp_path / "raw"
    write_coded_video(raw / "anna.mp4", 55)
    write_coded_video(raw / "sub" / "ben.mp4", 60)
    url = "s3://bucket/my set"
    for machine in ("a", "b"):
        with working_copy(url, tmp_path / machine / "set") as folder:
            prepare_clips(raw, folder, stages=recipe.stages())
    assert files(tmp_path / "a" / "set") == files(tmp_path / "b" / "set")
    assert len(read_manifest(url, cache_dir=tmp_path / "cache")) == 2
    store = obstore.FsspecStore("s3")
    store.put(f"{raw}/", "s3://bucket/raw/", recursive=True)
    prepare_clips("s3://bucket/raw", tmp_path / "c", stages=recipe.stages())
    assert len(read_manifest(tmp_path / "c")) == 2
