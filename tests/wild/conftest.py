"""Labelled real clips if available; only for tests and figures, no frame is stored."""

import json
from pathlib import Path

import pytest

WILD_DIR = Path(__file__).parents[3] / "shared" / "wild"


@pytest.fixture(scope="session")
def labels() -> dict[str, dict]:
    """The labels of every clip, by file name."""
    path = WILD_DIR / "labels.json"
    if not path.is_file():
        pytest.skip(f"no labelled real clips at {WILD_DIR}")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def clips(labels: dict[str, dict]) -> dict[str, Path]:
    """The clips that have labels."""
    return {name: WILD_DIR / "clips" / name for name in labels}
