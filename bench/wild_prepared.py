"""What preparing labelled real clips kept and left out, compared with their labels.

`python bench/wild_prepared.py FOLDER SET`. FOLDER contains the clips under `clips/` and
`labels.json`, described in docs/real_clips.md; SET is what `prepare.py input=FOLDER/clips` made.
Times are those of labelled frames at the clip's rate; what is `doubtful` counts for nothing.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from wild_scores import Label

from latentsync.data.manifest import DROPPED_NAME, MANIFEST_NAME
from latentsync.prepare.summary import read_lines

TURNED = ("mid", "profile", "away")
# A clip crosses a cut if it has more frames on both sides: rates of labels and clips differ, so
# that a frame at a bound may be on the other side.
TOLERANCE = 1

Frames = Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a clip by its labelled frames, `first` to `end` (exclusive), and what became of it:
    the prepared clip's name, or why it was left out."""

    first: int
    end: int
    what: str


def parts_of(rows: Iterable[Mapping], name: str, label: Label) -> list[Part]:
    """The parts of a labelled clip that rows of a manifest or a list of dropped items name."""
    fps, total = label["fps"], label["frames"]
    parts = []
    for row in rows:
        if Path(row["source"]).name != name:
            continue
        if "clip" in row and "num_frames" in row:
            start, seconds = row["start_frame"] / row["fps"], row["num_frames"] / row["fps"]
            bounds, what = (start, start + seconds), row["clip"]
        else:
            begin = row["start_seconds"]
            bounds = (0.0 if begin is None else begin, row["end_seconds"] or total / fps)
            what = f"{row['stage']}: {row['reason']}"
        first, end = (min(round(each * fps), total) for each in bounds)
        parts.append(Part(first, end, what))
    return parts


def marked(parts: Iterable[Part | tuple[int, int]], length: int) -> Frames:
    """The frames that are in any part, or in any span of inclusive bounds."""
    frames = np.zeros(length, bool)
    for part in parts:
        first, end = (part.first, part.end) if isinstance(part, Part) else (part[0], part[1] + 1)
        frames[first:end] = True
    return frames


def spans_of(label: Label, kind: str, person: str, *, sure: bool = False) -> list[tuple[int, int]]:
    """The spans of a person; `sure`: without doubtful ones."""
    return [
        tuple(each["span"])
        for each in label[kind]
        if each["person"] == person and not (sure and each.get("doubtful"))
    ]


def talking(label: Label) -> Frames:
    """Frames in which somebody is labelled as speaking, and neither as turned nor as hidden."""
    length = label["frames"]
    frames = np.zeros(length, bool)
    for person in {each["person"] for each in label["speaking_spans"]}:
        turned = [each for each in label["yaw_spans"] if each["class"] in TURNED]
        away = spans_of({"turned": turned}, "turned", person)
        hidden = spans_of(label, "occlusion_spans", person)
        speaks = spans_of(label, "speaking_spans", person, sure=True)
        frames |= marked(speaks, length) & ~marked([*away, *hidden], length)
    return frames


def alone(label: Label, kind: str) -> Frames:
    """Frames in which somebody has a sure span of this kind and nobody else is seen."""
    length = label["frames"]
    frames = np.zeros(length, bool)
    for one in label["people"]:
        others = [each["spans"] for each in label["people"] if each["id"] != one["id"]]
        beside = marked([tuple(span) for spans in others for span in spans], length)
        frames |= marked(spans_of(label, kind, one["id"], sure=True), length) & ~beside
    return frames


def crossed(parts: Iterable[Part], label: Label) -> list[str]:
    """Names of the clips with more frames than the tolerance on both sides of a sure cut."""
    cuts = [each["at"] for each in label["cuts"] if not each.get("doubtful")]
    return [
        part.what
        for part in parts
        if any(part.first + TOLERANCE < at and last + TOLERANCE < part.end for at, last in cuts)
    ]


def figures_of(kept: Sequence[Part], left_out: Sequence[Part], label: Label) -> dict:
    """Seconds and clips of one recording, and the talking seconds that were left out by reason."""
    length, fps = label["frames"], label["fps"]
    has_sound = label["has_audio"] and not label["silent_audio"]
    shown = marked(kept, length)
    wanted = talking(label) & has_sound
    lost: Counter[str] = Counter()
    missing = wanted & ~shown
    for part in left_out:
        here = marked([part], length) & missing
        lost[part.what] += int(here.sum())
        missing &= ~here
    frames = {
        "all": length,
        "kept": shown.sum(),
        "talking": wanted.sum(),
        "talking_kept": (wanted & shown).sum(),
        "not_listed": length - marked([*kept, *left_out], length).sum(),
        "drawn": 0 if label["kind"] == "photo" else shown.sum(),
        "profile": (shown & alone(label, "profile_spans")).sum(),
        "hidden": (shown & alone(label, "occlusion_spans")).sum(),
    }
    return {
        "clips": len(kept),
        "two_shots": crossed(kept, label),
        "dead": [] if has_sound else [part.what for part in kept],
        "seconds": {name: round(float(count) / fps, 3) for name, count in frames.items()},
        "lost": {what: round(count / fps, 3) for what, count in lost.items() if count},
    }


def compare(folder: Path, labels: Mapping[str, Label]) -> dict[str, dict]:
    """The figures of every recording in a prepared set."""
    manifest, dropped = (read_lines(folder / name) for name in (MANIFEST_NAME, DROPPED_NAME))
    return {
        name: figures_of(parts_of(manifest, name, label), parts_of(dropped, name, label), label)
        for name, label in labels.items()
    }


def totals(figures: Mapping[str, Mapping]) -> dict:
    """Sums over recordings, and the share of the talking seconds that was kept."""
    seconds: Counter[str] = Counter()
    for each in figures.values():
        seconds.update(each["seconds"])
    return {
        "clips": sum(each["clips"] for each in figures.values()),
        "two_shots": [name for each in figures.values() for name in each["two_shots"]],
        "dead": [name for each in figures.values() for name in each["dead"]],
        "seconds": {name: round(count, 2) for name, count in seconds.items()},
        "talking_kept": round(seconds["talking_kept"] / max(seconds["talking"], 1e-9), 4),
    }


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} FOLDER SET (see the first lines of this file)")
    folder, prepared = map(Path, sys.argv[1:])
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    figures = compare(prepared, labels)
    for name, each in figures.items():
        print(name, json.dumps(each))
    print(json.dumps(totals(figures), indent=1))


if __name__ == "__main__":
    main()
