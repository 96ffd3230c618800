"""The plan as one HTML file: a picture of every person, when they appear, who is redrawn."""

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from latentsync.faces.tracking.survey import Track
from latentsync.files import publish
from latentsync.media.frame_reader import FrameReader
from latentsync.pages import clock, render
from latentsync.pipeline.job import Job
from latentsync.pipeline.plan import Plan, PlannedFace
from latentsync.pipeline.reporting.html import MAX_ROWS
from latentsync.pipeline.reporting.report import close_up
from latentsync.pipeline.speakers import Turn

# Marks our pages, which later plans may replace.
GENERATOR = "latentsync plan"
PICTURE_SIDE = 168
JPEG_QUALITY = 85
MAX_PERSONS = 60


def plan_page_path(out: Path) -> Path:
    """Path of the plan's page for the result `out`."""
    return out.with_name(f"{out.stem}.plan.html")


def check_plan_page(path: Path) -> None:
    """FileExistsError if the page would replace a file that is not a plan's page."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if GENERATOR.encode() not in file.read(2048):
            raise FileExistsError(f"{path} exists and is not the page of a plan: move it away")


def write_plan_page(path: Path, job: Job, plan: Plan) -> None:
    """Write the page atomically. Decodes one frame for each of the first 60 persons."""
    check_plan_page(path)
    page = render("latentsync.pipeline.reporting", "plan.html", _values(job, plan))
    with publish(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _values(job: Job, plan: Plan) -> dict[str, object]:
    """The values of the template."""
    faces = [(shot.number, face) for shot in plan.shots for face in shot.faces]
    ids = sorted({face.person for _, face in faces})
    length = max((shot.end_seconds for shot in plan.shots), default=0.0) or 1.0
    pictures = person_pictures(job.reader(), job.analysis.survey.tracks, ids[:MAX_PERSONS])
    turns = plan.turns or []
    persons = [
        _person(person, [face for _, face in faces if face.person == person], plan.turns, length)
        | {"picture": pictures.get(person)}
        for person in ids[:MAX_PERSONS]
    ]
    tiles = [
        (clock(length), f"long, {plan.num_frames} frames"),
        (str(len(plan.shots)), "shots"),
        (str(len(ids)), "persons"),
    ]
    if "network_seconds" in plan.expected:
        tiles.append((clock(plan.expected["network_seconds"]), "expected in the network"))
    return {
        "generator": GENERATOR,
        "name": Path(plan.video).name,
        "tiles": tiles,
        "notes": plan.notes,
        "persons": persons,
        "num_persons": len(ids) - MAX_PERSONS,
        "has_turns": plan.turns is not None,
        "turns": turns[:MAX_ROWS],
        "num_turns": len(turns) - MAX_ROWS,
        "faces": faces[:MAX_ROWS],
        "num_faces": len(faces) - MAX_ROWS,
    }


def _person(
    person: int, faces: Sequence[PlannedFace], turns: Sequence[Turn] | None, length: float
) -> dict[str, object]:
    seen = [(face.start_seconds, face.end_seconds) for face in faces]
    redrawn = [span for face in faces for span in redrawn_spans(face, turns)]
    spoken = [(turn.start, turn.end) for turn in turns or [] if turn.person == person]
    bars = [
        _bar("alone", span, length, face.reason) for span, face in zip(seen, faces, strict=True)
    ]
    bars += [_bar("drawn", span, length, "redrawn") for span in redrawn]
    bars += [_bar("turn", span, length, "speaks") for span in spoken]
    return {
        "id": person,
        "seen": clock(_total(seen)),
        "redrawn": clock(_total(redrawn)) if redrawn else "never",
        "bars": bars,
    }


def redrawn_spans(face: PlannedFace, turns: Sequence[Turn] | None) -> list[tuple[float, float]]:
    """Times, in seconds of the source, at which the plan redraws a face: the turns of its person if
    the plan has turns, otherwise all of the face."""
    if not face.edit:
        return []
    if turns is None:
        return [(face.start_seconds, face.end_seconds)]
    spans = [
        (max(turn.start, face.start_seconds), min(turn.end, face.end_seconds))
        for turn in turns
        if turn.person == face.person
    ]
    return [(start, end) for start, end in spans if start < end]


def person_pictures(
    reader: FrameReader, tracks: Sequence[Track], persons: Sequence[int]
) -> dict[int, str]:
    """For each person a base64 JPEG of the square around their largest, most frontal face."""
    best = {person: frame for person in persons if (frame := best_frame(tracks, person))}
    order = sorted(best, key=lambda person: best[person][1])
    numbers = [best[person][1] for person in order]
    pictures = {}
    for person, picture in zip(order, reader.pictures(numbers), strict=True):
        track, number = best[person]
        box = track.boxes[number - track.first]
        square = picture.rgb(close_up(picture.shape[:2], box))
        side = (PICTURE_SIDE, PICTURE_SIDE)
        scaled = cv2.resize(square, side, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR)
        _, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        pictures[person] = base64.b64encode(coded.tobytes()).decode("ascii")
    return pictures


def best_frame(tracks: Sequence[Track], person: int) -> tuple[Track, int] | None:
    """Track and stored frame that show a person best; None if no face of theirs has a box."""
    best, most = None, 0.0
    for track in tracks:
        if track.person != person:
            continue
        heights = track.boxes[:, 3] - track.boxes[:, 1]
        # A face without landmarks counts half, because it may be a profile.
        turned = np.where(np.isfinite(track.yaws), np.cos(np.radians(track.yaws)), 0.5)
        worth = np.nan_to_num(heights * turned)
        place = int(worth.argmax())
        if worth[place] > most:
            best, most = (track, track.first + place), float(worth[place])
    return best


def _bar(kind: str, span: tuple[float, float], length: float, why: str) -> dict[str, str]:
    start, end = span
    return {
        "kind": kind,
        "x": f"{100 * start / length:.3f}",
        "width": f"{max(100 * (end - start) / length, 0.05):.3f}",
        "title": f"{clock(start)} to {clock(end)}: {why or 'redrawn'}",
    }


def _total(spans: Sequence[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)
