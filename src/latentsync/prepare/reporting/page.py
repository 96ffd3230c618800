"""A prepared set as one HTML file: funnel, histograms, a wall of clips, identities, times."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from latentsync.data.clips import Clip
from latentsync.files import printable, publish
from latentsync.pages import clock, render
from latentsync.prepare.accounts import Bounds, accounts_of, unaccounted
from latentsync.prepare.limits import Limits
from latentsync.prepare.reporting.funnel import (
    Reason,
    Step,
    bounds_of,
    bounds_of_clip,
    steps_of,
)
from latentsync.prepare.reporting.histograms import FLOOR, HEIGHT, WIDTH, histograms_of
from latentsync.prepare.reporting.wall import (
    SOUND_HEIGHT,
    SOUND_WIDTH,
    Look,
    Looks,
)
from latentsync.prepare.stage import Outcome

MAX_ROWS = 60
MAX_KEPT_TILES = 60
MAX_TILES_PER_REASON = 12
MAX_DROPPED_TILES = 120
MAX_PART_TILES = 24  # of them from recordings, which are slower to read than clips
LOOKS_NAME = ".report_pictures.json"
PERSON, SPLIT = "person", "split"
STAGES = "stages"

Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Prepared:
    """A set as it is to be shown: `before` are its outcomes as stages made them, `after` those
    within the limits."""

    before: Sequence[Outcome]
    after: Sequence[Outcome]
    limits: Limits
    parameters: Mapping[str, object]

    @property
    def kept(self) -> list[Clip]:
        return [clip for outcome in self.after for clip in outcome.clips]

    @property
    def made(self) -> list[Clip]:
        return [clip for outcome in self.before for clip in outcome.clips]


def write_page(path: Path, prepared: Prepared) -> None:
    """Write the page atomically; its size does not grow with that of the set."""
    looks = Looks(path.parent / LOOKS_NAME)
    page = build_page(prepared, path.parent.name, looks)
    with publish(path) as partial:
        partial.write_text(page, encoding="utf-8")
    looks.save()


def build_page(prepared: Prepared, name: str, looks: Looks) -> str:
    """The page's HTML; sections without content are omitted."""
    stages = prepared.parameters.get(STAGES, ())
    steps = steps_of(prepared.after, [str(each) for each in stages])  # type: ignore[attr-defined]
    kept = frozenset(clip.name for clip in prepared.kept)
    values = {
        "name": printable(name),
        "tiles": _tiles(prepared),
        "warnings_": _warnings(prepared),
        "steps": [_step(step, steps[0].seconds_in) for step in steps],
        "reasons": _reasons(steps),
        "histograms": histograms_of(prepared.made, kept, prepared.limits),
        "histogram_size": (WIDTH, HEIGHT, FLOOR),
        "kept_tiles": _kept_tiles(prepared, looks),
        "num_kept": len(kept),
        "walls": _walls(prepared, steps, looks),
        "sound_size": (SOUND_WIDTH, SOUND_HEIGHT),
        "identities": _identities(prepared.after),
        "splits": _splits(prepared.kept),
        "times": _times(prepared.after),
        "max_rows": MAX_ROWS,
        "parameters": json.dumps(prepared.parameters, indent=2, default=str),
    }
    return render("latentsync.prepare.reporting", "preparation.html", values)


def _tiles(prepared: Prepared) -> list[tuple[str, str]]:
    accounts = accounts_of(prepared.after)
    total, kept = (sum(getattr(each, name) for each in accounts) for name in ("total", "kept"))
    worked = sum(outcome.work_seconds or 0.0 for outcome in prepared.after)
    with_clip = sum(bool(outcome.clips) for outcome in prepared.after)
    tiles = [
        (str(len(prepared.kept)), "clips"),
        (f"{with_clip} of {len(prepared.after)}", "files have a clip"),
        (clock(kept), f"kept of {clock(total)}"),
    ]
    if total:
        tiles.append((f"{kept / total:.0%}", "of all seconds kept"))
    if worked and total:
        tiles.append((clock(worked), f"of work, {worked / total:.2f} s per second of video"))
    return tiles


def _warnings(prepared: Prepared) -> list[str]:
    return [
        f"{printable(account.source)}: {account.missing:.2f} s are in no clip and not listed as "
        "dropped"
        for account in unaccounted(accounts_of(prepared.after))[:MAX_ROWS]
    ]


def _step(step: Step, total: float) -> dict[str, object]:
    return {
        "stage": step.stage,
        "seconds_in": step.seconds_in,
        "dropped": step.seconds_in - step.seconds_out,
        "num_dropped": step.num_dropped,
        "percent_out": 100 * step.seconds_out / total if total else 0.0,
        "percent_dropped": 100 * (step.seconds_in - step.seconds_out) / total if total else 0.0,
    }


def _reasons(steps: Sequence[Step]) -> list[list[str]]:
    return [
        [
            step.stage,
            printable(reason.name),
            str(len(reason.dropped)),
            clock(reason.seconds) if reason.seconds else "-",
            printable(reason.dropped[0].source),
        ]
        for step in steps
        for reason in step.reasons
    ]


@dataclass(frozen=True, slots=True)
class Tile:
    """A clip or a dropped part as it is shown."""

    title: str
    note: str
    look: Look


def _kept_tiles(prepared: Prepared, looks: Looks) -> list[Tile]:
    """Clips evenly spread over the set."""
    pairs = [(outcome.source.name, clip) for outcome in prepared.after for clip in outcome.clips]
    return [
        Tile(title_of(source, bounds_of_clip(clip)), _note_of(clip), looks.of_clip(clip))
        for source, clip in spread(pairs, MAX_KEPT_TILES)
    ]


def title_of(source: str, bounds: Bounds) -> str:
    return f"{printable(source)}, {bounds[0]:.2f} to {bounds[1]:.2f} s"


def _walls(prepared: Prepared, steps: Sequence[Step], looks: Looks) -> list[dict[str, object]]:
    """Per stage and reason, what was dropped, evenly spread."""
    outcomes = {outcome.source.name: outcome for outcome in prepared.before}
    clips = {clip.path.name: clip for clip in prepared.made}
    walls: list[dict[str, object]] = []
    room, room_for_parts = MAX_DROPPED_TILES, MAX_PART_TILES
    for step in steps:
        for reason in step.reasons:
            tiles = []
            for part in spread(reason.dropped, min(MAX_TILES_PER_REASON, room)):
                outcome = outcomes[part.source]
                if part.clip in clips:
                    look = looks.of_clip(clips[part.clip])
                elif outcome.seconds and room_for_parts:
                    look = looks.of_part(outcome.source.path, bounds_of(part, outcome.seconds))
                    room_for_parts -= 1
                else:
                    continue
                title = title_of(part.source, bounds_of(part, outcome.seconds or 0.0))
                tiles.append(Tile(title, printable(part.reason), look))
            room -= len(tiles)
            if tiles:
                walls.append(_wall(step, reason, tiles))
    return walls


def _wall(step: Step, reason: Reason, tiles: Sequence[Tile]) -> dict[str, object]:
    return {
        "stage": step.stage,
        "reason": printable(reason.name),
        "num": len(reason.dropped),
        "tiles": tiles,
    }


def _note_of(clip: Clip) -> str:
    measures = {
        name: f"{value:.4g}" if isinstance(value, int | float) else value
        for name, value in clip.measures.items()
        if value is not None and not name.endswith("_hash") and name != "id"
    }
    return ", ".join(f"{name} {value}" for name, value in measures.items())


def _identities(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """For each source its people and their seconds, the most people first."""
    rows = []
    for outcome in outcomes:
        seconds: dict[str, float] = defaultdict(float)
        for clip in outcome.clips:
            person = clip.measures.get(PERSON)
            if person is not None:
                shown = f"{person:g}" if isinstance(person, int | float) else person
                seconds[shown] += clip.num_frames / clip.fps
        if seconds:
            people = ", ".join(f"{person}: {clock(each)}" for person, each in seconds.items())
            rows.append([printable(outcome.source.name), str(len(seconds)), people])
    return sorted(rows, key=lambda row: -int(row[1]))


def _splits(clips: Iterable[Clip]) -> list[list[str]]:
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    sources: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        split = clip.measures.get(SPLIT)
        if split is not None:
            seconds[str(split)] += clip.num_frames / clip.fps
            counts[str(split)] += 1
            sources[str(split)].add(clip.source)
    return [
        [split, str(counts[split]), str(len(sources[split])), clock(seconds[split])]
        for split in sorted(seconds)
    ]


def _times(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """The files that took longest: name, length, work, and work per second."""
    known = [each for each in outcomes if each.work_seconds is not None]
    return [
        [
            printable(outcome.source.name),
            clock(outcome.seconds) if outcome.seconds else "-",
            clock(worked),
            f"{worked / outcome.seconds:.2f}" if outcome.seconds else "-",
            str(len(outcome.clips)),
        ]
        for outcome in sorted(known, key=lambda each: -(each.work_seconds or 0.0))
        for worked in (outcome.work_seconds or 0.0,)
    ]


def spread(items: Sequence[Shown], count: int) -> list[Shown]:
    """At most `count` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
