"""Drawn recordings with one planted defect each: every one is dropped, or kept, for its reason."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from latentsync.faces.detectors.model_files import SHA256, default_cache
from latentsync.media.video import open_clip
from latentsync.prepare import (
    Dedupe,
    LocalExecutor,
    Outcome,
    Recipe,
    SerialExecutor,
    limits_of,
    prepare_clips,
)
from latentsync.prepare.accounts import accounts_of, unaccounted
from latentsync.prepare.executors import Executor
from planted import Expected, Planted, catalogue, plant

ROOT = Path(__file__).parents[2]
SYNCNET = ROOT / "experiments" / "demo" / "model" / "syncnet"
FEW = (
    "rates/30.mp4",
    "rotated/90.mp4",
    "anna/00001.mp4",
    "copies/coarse.mp4",
    "offsets/5.mp4",
    "two/cut.mp4",
    "silent/hiss.mp4",
    "still/noisy.mp4",
    "blur/much.mp4",
    "broken/end_missing.mp4",
)
STEP = 5  # every fifth face of a clip is compared

pytestmark = [
    pytest.mark.skipif(not SYNCNET.is_dir(), reason="the demo's SyncNet is not here"),
    pytest.mark.skipif(
        not all((default_cache() / name).is_file() for name in SHA256),
        reason="the face models are not fetched: python -m latentsync.faces.fetch",
    ),
]


def prepared(planted: Sequence[Planted], folder: Path, executor: Executor) -> dict[str, Outcome]:
    """What became of each recording, by the limits of conf/prepare."""
    raw = plant(planted, folder / "raw")
    outcomes = prepare_clips(
        raw,
        folder / "set",
        stages=Recipe(resolution=128, syncnet=SYNCNET).stages(),
        limits=limits_of(defaults()["limits"]),
        rules=[Dedupe(**defaults()["dedupe"])],
        executor=executor,
    )
    assert not unaccounted(accounts_of(outcomes))
    return {outcome.source.name: outcome for outcome in outcomes}


def defaults() -> dict:
    return yaml.safe_load((ROOT / "conf/prepare/default.yaml").read_text(encoding="utf-8"))


def complaints(name: str, expected: Expected, outcome: Outcome) -> Iterator[str]:
    """What is not as it must be, in words."""
    found = [f"{part.stage}: {part.reason}" for part in outcome.dropped]
    least, most = expected.clips
    if not least <= len(outcome.clips) <= most:
        yield f"{name}: {len(outcome.clips)} clips, not {least} to {most}; dropped: {found}"
    for stage, reason in expected.dropped:
        fits = [part for part in outcome.dropped if stage in ("", part.stage)]
        if not any(reason in part.reason for part in fits):
            yield f"{name}: not dropped at {stage} as {reason!r}, but: {found}"
    if not outcome.clips and not outcome.dropped:
        yield f"{name}: neither kept nor dropped"
    for clip in outcome.clips:
        shown = persons_of(clip.path, expected.faces)
        if len(shown) > 1:
            yield f"{name}: {clip.name} shows {len(shown)} persons"


def persons_of(path: Path, colours: Sequence[tuple[float, ...]]) -> set[int]:
    """Which of the colours of skin the middles of a clip's faces have."""
    if not colours:
        return set()
    reader = open_clip(path)
    faces = reader.frames(np.arange(0, len(reader), STEP))
    size = faces.shape[-2] if faces.shape[-1] == 3 else faces.shape[-1]
    pixels = faces if faces.shape[-1] == 3 else faces.transpose(0, 2, 3, 1)
    middle = slice(size * 3 // 8, size * 5 // 8)
    skins = np.median(pixels[:, middle, middle].reshape(len(faces), -1, 3), axis=1)
    apart = np.linalg.norm(skins[:, None] - np.array(colours)[None], axis=-1)
    return set(apart.argmin(axis=1).tolist())


def offset_of(outcome: Outcome) -> float | None:
    """As the SyncNet measured it, of a clip that was kept or dropped for it; None if it did not."""
    values = [part.value for part in outcome.dropped if part.stage == "sync" and part.value]
    values += [clip.measures["sync_offset"] for clip in outcome.clips]
    return values[0] if values else None


def check(planted: Sequence[Planted], outcomes: dict[str, Outcome]) -> None:
    assert outcomes.keys() == {each.name for each in planted}
    wrong = [
        complaint
        for each in planted
        for complaint in complaints(each.name, each.expected, outcomes[each.name])
    ]
    assert not wrong, "\n".join(wrong)
    offsets = {
        each.name: (each.expected.offset, offset_of(outcomes[each.name]))
        for each in planted
        if each.expected.offset is not None
    }
    missed = {
        name: pair
        for name, pair in offsets.items()
        if pair[1] is None or abs(pair[0] - pair[1]) > 1
    }
    assert len(missed) <= 0.05 * len(offsets), missed


def test_a_few_recordings_are_each_kept_or_dropped_for_their_reason(tmp_path: Path) -> None:
    planted = [each for each in catalogue() if each.name in FEW]
    assert len(planted) == len(FEW)
    check(planted, prepared(planted, tmp_path, SerialExecutor()))


@pytest.mark.slow
def test_all_recordings_are_each_kept_or_dropped_for_their_reason(tmp_path: Path) -> None:
    planted = catalogue()
    assert len(planted) >= 60
    outcomes = prepared(planted, tmp_path, LocalExecutor(num_workers=2))
    check(planted, outcomes)
    for offset in (-8, 8):
        assert not outcomes[f"offsets/{offset}.mp4"].clips
