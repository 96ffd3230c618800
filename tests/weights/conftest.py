"""Published files, written once; no test here uses the user's own caches."""

from pathlib import Path

import pytest

from weights.published import write_published


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The UNet of a set of tiny files; Whisper, VAE and SyncNet are next to it."""
    return write_published(tmp_path_factory.mktemp("checkpoints") / "files")


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
