"""Checks shapes in every test; fixtures used by several folders of tests."""

import logging
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of the package: from here on wrong shapes or types raise errors.
install_import_hook("latentsync", "typechecker.check")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def talking_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mp4 of a synthetic speaker, 3 s at 128 px, with its wav and ground truth next to it."""
    from latentsync.data.synthetic import render_clip

    stem = tmp_path_factory.mktemp("drawn") / "talking"
    render_clip(stem, seed=11, seconds=3.0, size=128)
    return stem.with_suffix(".mp4")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests a longer timeout than the one in pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(autouse=True)
def log_handlers_end_with_their_test() -> Iterator[None]:
    """Remove log handlers added by commands within a test: their streams will be closed."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [each for each in root.handlers if each not in before]:
        if type(handler) in (logging.StreamHandler, logging.FileHandler):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape file names that are not UTF-8 in captured output; workers send it as UTF-8."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report
