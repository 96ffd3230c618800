"""`python evaluate.py` with no test set yet: it draws speakers and prepares them by itself."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.drawn_test_set import draw_and_prepare
from latentsync.cli.names import quote
from latentsync.data import read_manifest
from latentsync.faces.detectors.model_files import default_cache

FACE_MODELS = default_cache()


def test_every_speaker_that_is_drawn_becomes_a_clip(tmp_path: Path) -> None:
    """No limit, and no rule about copies, takes any of them out of the test."""
    if not FACE_MODELS.is_dir():
        pytest.skip("python -m latentsync.faces.fetch has not run")
    register_resolvers()
    words = [
        "executor=serial", "world={num_speakers:3,seconds:2.5,size:256,num_workers:1}",
        f"paths.data={quote(str(tmp_path))}", "progress=false",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("evaluate", overrides=words)
    draw_and_prepare(config)
    clips = read_manifest(tmp_path / "drawn" / "test")
    assert len({clip.source for clip in clips}) == len(clips) == 3
