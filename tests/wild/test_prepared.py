"""Labelled real clips prepared by the defaults of conf/prepare: what is kept, and what is not."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from wild_prepared import Part, compare, crossed, figures_of, parts_of, talking, totals

from latentsync.cli.command import conf_dir
from latentsync.cli.prepare import make_clips
from latentsync.faces.detectors.model_files import SHA256, default_cache

WEIGHTS = Path(__file__).parents[3] / "shared/models/lr_asd/pretrain_AVA.model"
LABEL = {
    "fps": 30.0,
    "frames": 300,
    "has_audio": True,
    "silent_audio": False,
    "kind": "photo",
    "cuts": [{"at": [150, 150]}, {"at": [250, 252], "doubtful": True}],
    "people": [{"id": "A", "spans": [[0, 299]]}, {"id": "B", "spans": [[0, 89]]}],
    "speaking_spans": [
        {"person": "A", "span": [0, 209]},
        {"person": "B", "span": [210, 239], "doubtful": True},
    ],
    "yaw_spans": [{"person": "A", "span": [60, 89], "class": "profile"}],
    "profile_spans": [{"person": "A", "span": [60, 119], "class": "profile"}],
    "occlusion_spans": [{"person": "A", "span": [180, 209], "by": "hand", "doubtful": True}],
}


@pytest.fixture(scope="module")
def prepared(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all((default_cache() / name).is_file() for name in SHA256):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    if not WEIGHTS.is_file():
        pytest.skip(f"no weights of LR-ASD at {WEIGHTS}")
    folder = tmp_path_factory.mktemp("wild") / "set"
    some = next(iter(clips.values())).parent
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [f"input={some}", f"output={folder}", "resolution=128", "progress=false"]
        make_clips(compose("prepare", [*words, f"prepare.lr_asd={WEIGHTS}"]))
    return folder


@pytest.mark.slow
def test_real_clips_are_kept_and_left_out_as_labelled(
    labels: dict[str, dict], prepared: Path
) -> None:
    figures = compare(prepared, labels)
    sums = totals(figures)
    shown = json.dumps(sums)
    assert sums["two_shots"] == [], shown
    assert sums["dead"] == [], shown
    assert sums["seconds"]["profile"] == 0, shown
    assert sums["seconds"]["hidden"] == 0, shown
    assert sums["talking_kept"] >= 0.85, shown
    unlisted = {name: each["seconds"]["not_listed"] for name, each in figures.items()}
    # A frame where rates are rounded.
    late = {name: most for name, most in unlisted.items() if most > 1.5 / labels[name]["fps"]}
    assert late == {}


def test_talking_is_what_is_heard_and_seen_from_the_front() -> None:
    frames = talking(LABEL)
    expected = [*range(60), *range(90, 180)]
    assert frames.nonzero()[0].tolist() == expected


def test_a_clip_crosses_a_cut_with_frames_on_both_sides() -> None:
    parts = [
        Part(100, 151, "to"),
        Part(149, 200, "from"),
        Part(100, 153, "over"),
        Part(251, 300, ""),
    ]
    assert crossed(parts, LABEL) == ["over"]


def test_what_is_lost_is_told_by_its_reason() -> None:
    """Seconds of clips at 25 fps against labels at 30."""
    common = {"start_frame": 0, "num_frames": 75, "fps": 25.0}
    manifest = [
        {"clip": "clips/a.mp4", "source": "/raw/a.mp4", **common},
        {"clip": "clips/b.mp4", "source": "/raw/b.mp4", **common},
    ]
    dropped = [
        {
            "source": "a.mp4",
            "stage": stage,
            "reason": why,
            "start_seconds": start,
            "end_seconds": end,
        }
        for stage, why, start, end in (("align", "no", 3.0, 5.0), ("sound", "dead", 4.0, 9.0))
    ]
    kept, left_out = parts_of(manifest, "a.mp4", LABEL), parts_of(dropped, "a.mp4", LABEL)
    figures = figures_of(kept, left_out, LABEL)
    assert figures["clips"] == 1
    assert figures["seconds"] == {
        "all": 10.0, "kept": 3.0, "talking": 5.0, "talking_kept": 2.0, "not_listed": 1.0,
        "drawn": 0.0, "profile": 0.0, "hidden": 0.0,
    }  # fmt: skip
    assert figures["lost"] == {"align: no": 2.0, "sound: dead": 1.0}
    assert totals({"a": figures, "b": figures})["talking_kept"] == 0.4
    silent = figures_of(kept, left_out, {**LABEL, "silent_audio": True})
    assert silent["dead"] == ["clips/a.mp4"]
    assert silent["seconds"]["talking"] == 0
