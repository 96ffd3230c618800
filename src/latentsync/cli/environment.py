"""Record what a run was made with: command, code, libraries, machine."""

import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from latentsync.files import publish

PACKAGES = (
    "diffusers",
    "hydra-core",
    "latentsync",
    "lightning",
    "numpy",
    "torch",
    "torchmetrics",
    "torchvision",
    "transformers",
)


def record_environment(path: Path) -> None:
    """Append one entry to the JSON list at `path`: a resumed run has several."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    with publish(path) as partial:
        text = json.dumps([*entries, describe_environment()], indent=2) + "\n"
        partial.write_text(text, encoding="utf-8")


def describe_environment() -> dict[str, object]:
    """The environment as plain values."""
    devices = [
        torch.cuda.get_device_name(index)
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": describe_git(Path(__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": devices,
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def describe_git(folder: Path) -> dict[str, object] | None:
    """Commit and changed files of the repository that contains `folder`; None without a repository
    or git."""
    program = shutil.which("git")
    if program is None:
        return None

    def ask(*words: str) -> str | None:
        asked = subprocess.run(
            [program, "-C", folder, *words], capture_output=True, text=True, check=False
        )
        return asked.stdout if asked.returncode == 0 else None

    commit, changed = ask("rev-parse", "HEAD"), ask("status", "--porcelain")
    if commit is None or changed is None:
        return None
    return {"commit": commit.strip(), "changed": changed.splitlines()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
