"""The figures of one labelled clip by section, and their totals over clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from wild_occlusion import occlusion_figures, occlusion_rates
from wild_scores import (
    Label,
    Seen,
    auc,
    cut_rates,
    identities,
    jitter,
    lags,
    match_cuts,
    name_tracks,
    presence,
    share,
    turn_accuracy,
)

from latentsync.faces import SmoothAligner
from latentsync.faces.occlusion import OcclusionMasker
from latentsync.faces.tracking.survey import Survey, Track, usable
from latentsync.faces.warp import invert, mean_scale, transform
from latentsync.media.frame_reader import FrameTimes
from latentsync.media.video import probe
from latentsync.models.speaker_scorers import ActiveSpeakerScorer
from latentsync.pipeline.analysis import aligner_for
from latentsync.pipeline.speakers import SpeakerChoice, who_speaks

SECTIONS = ("cuts", "faces", "identities", "yaw", "turns", "occlusion", "placement", "cost")
SIZES = (0, 40, 80, 10_000)  # box heights of faces in pixels
SIDE = 256
# Points of the square face whose jitter is measured.
CORNERS = np.array([[64.0, 64.0], [192.0, 64.0], [128.0, 192.0]])
SLOTS_PER_SECOND = 25
# Typical degrees of each class of labels.
TYPICAL_YAWS = {"frontal": 15.0, "mid": 47.0, "profile": 75.0}


@dataclass(frozen=True, slots=True)
class Look:
    """Results of analyzing a clip, and CPU seconds by stage."""

    path: Path
    survey: Survey
    times: FrameTimes
    seconds: Mapping[str, float]

    def seen(self) -> list[Seen]:
        shots = self.survey.shots
        return [
            Seen(
                track.person,
                next(i for i, shot in enumerate(shots) if shot.first <= track.first < shot.end),
                track.first,
                track.end,
            )
            for track in self.survey.tracks
        ]


def figures_of(
    look: Look,
    label: Label,
    *,
    sections: Sequence[str],
    max_yaw: float,
    scorer: ActiveSpeakerScorer | None = None,
    masker: OcclusionMasker | None = None,
) -> dict[str, dict]:
    """Figures by section; empty for sections without labels."""
    makers = {
        "cuts": lambda: cut_figures(look, label),
        "faces": lambda: face_figures(look, label),
        "identities": lambda: identity_figures(look, label),
        "yaw": lambda: yaw_figures(look, label, max_yaw),
        "turns": lambda: turn_figures(look, label, scorer),
        "occlusion": lambda: occlusion_figures(
            look.path,
            look.survey,
            look.times,
            named_tracks(look, label),
            label,
            max_yaw=max_yaw,
            masker=masker,
        ),
        "placement": lambda: placement_figures(look),
        "cost": lambda: {"frames": look.survey.num_frames, **look.seconds},
    }
    return {section: makers[section]() for section in sections}


def totals(clips: Mapping[str, Mapping[str, dict]]) -> dict[str, dict]:
    """Totals over clips: counts are added, values gathered, and rates computed from both."""
    sums: dict[str, Counter] = {}
    values: dict[str, dict[str, list[float]]] = {}
    for figures in clips.values():
        for section, of_clip in figures.items():
            for name, value in of_clip.items():
                if isinstance(value, list):
                    values.setdefault(section, {}).setdefault(name, []).extend(value)
                elif isinstance(value, (int, float)):
                    sums.setdefault(section, Counter())[name] += value
    return {
        section: {
            **{name: round(value, 3) for name, value in sums.get(section, {}).items()},
            **_rates(section, sums.get(section, Counter()), values.get(section, {})),
        }
        for section in SECTIONS
        if section in sums or section in values
    }


def _rates(section: str, sums: Counter, values: Mapping[str, list[float]]) -> dict:
    if section == "cuts":
        return cut_rates(sums)
    if section == "faces":
        return {"recall": share(sums["found"], sums["expected"])}
    if section == "identities":
        return {"right_share": share(sums["right"], sums["clips"])}
    if section == "yaw":
        turned = [*values.get("frontal_yaws", []), *values.get("mid_yaws", [])]
        faced = sums["frontal_frames"] + sums["mid_frames"]
        return {
            "recall_frontal_mid": share(sums["frontal_seen"] + sums["mid_seen"], faced),
            "AUC": auc(values.get("profile_yaws", []), turned),
            **{
                f"{kind}_refused_share": share(sums[f"{kind}_refused"], sums[f"{kind}_frames"])
                for kind in ("profile", "mid", "frontal")
            },
        }
    if section == "turns":
        slots = sums["right"] + sums["wrong"] + sums["nobody"]
        return {
            "right_share": share(sums["right"], slots),
            "wrong_share": share(sums["wrong"], slots),
            "off_screen_nobody_share": share(sums["off_screen_nobody"], sums["off_screen"]),
        }
    if section == "occlusion":
        return occlusion_rates(sums)
    if section == "placement":
        return {
            f"{name}_{part}": round(float(np.percentile(values[name], percent)), 2)
            for name in values
            for part, percent in (("median", 50), ("p95", 95))
        }
    return {
        f"{stage}_ms_per_frame": round(1000 * sums[stage] / max(sums["frames"], 1), 3)
        for stage in ("decode", "shots", "faces", "all")
        if stage in sums
    }


def cut_figures(look: Look, label: Label) -> dict:
    firsts = [shot.first for shot in look.survey.shots[1:]]
    return {**match_cuts(firsts, label["cuts"]), "at": str(firsts)}


def face_figures(look: Look, label: Label) -> dict:
    """Faces by their number per frame, since labels state how many there are but not where; the
    number of faces found by height; and of tracks that fit no label, to be looked at."""
    num_found = np.zeros(look.survey.num_frames, int)
    counts: Counter[str] = Counter()
    for track in look.survey.tracks:
        seen = np.isfinite(track.boxes[:, 0])
        num_found[track.first : track.end] += seen
        heights = (track.boxes[:, 3] - track.boxes[:, 1])[seen]
        for low, high in pairwise(SIZES):
            counts[f"found_{low}_px"] += int(((heights >= low) & (heights < high)).sum())
    unlabelled = [track for track, name in named_tracks(look, label) if name is None]
    counts["unlabelled_tracks"] = sum(
        bool(np.nanmax(track.boxes[:, 3] - track.boxes[:, 1]) > SIZES[1]) for track in unlabelled
    )
    return {**presence(num_found.tolist(), label["people"]), **counts}


def identity_figures(look: Look, label: Label) -> dict:
    """Empty for clips with fewer than two tracks, which cannot be confused."""
    if len(look.survey.tracks) < 2 or not label["people"]:
        return {}
    return {"clips": 1, **identities(look.seen(), label["people"], yaw_hints(look, label))}


def named_tracks(look: Look, label: Label) -> list[tuple[Track, str | None]]:
    names = name_tracks(look.seen(), label["people"], yaw_hints(look, label))
    return list(zip(look.survey.tracks, names, strict=True))


def yaw_hints(look: Look, label: Label) -> dict[tuple[int, str], float]:
    """Hints that distinguish people who are visible throughout, by how well their turn of the head
    agrees with the labels."""
    agreements: dict[tuple[int, str], list[float]] = {}
    for span in label["yaw_spans"]:
        if span["class"] not in TYPICAL_YAWS:
            continue
        for index, track in enumerate(look.survey.tracks):
            first, end = (max(track.first, at) - track.first for at in _ends(span))
            yaws = np.abs(track.yaws[first : max(end, first)])
            off = np.abs(yaws[np.isfinite(yaws)] - TYPICAL_YAWS[span["class"]])
            key = index, span["person"]
            agreements.setdefault(key, []).extend((1 - off / 45).clip(0, 1).tolist())
    return {key: float(np.mean(each)) for key, each in agreements.items() if each}


def _ends(span: Label) -> tuple[int, int]:
    first, last = span["span"]
    return first, last + 1


def yaw_figures(look: Look, label: Label, max_yaw: float) -> dict:
    """For every frame of a labelled span: the measured turn of the head, and whether the face is
    refused. If no face is found, a profile counts as refused and a frontal face as missed."""
    counts: Counter[str] = Counter()
    yaws: dict[str, list[float]] = {}
    tracks = named_tracks(look, label)
    for span in label["yaw_spans"]:
        kind, (first, last) = span["class"], span["span"]
        if kind == "away" or span.get("doubtful"):
            continue
        length = last + 1 - first
        fine, seen = np.zeros(length, bool), np.zeros(length, bool)
        for track, name in tracks:
            if name != span["person"]:
                continue
            at = np.arange(max(track.first, first), min(track.end, last + 1))
            inside, place = at - track.first, at - first
            can = usable(track, min_size=0, max_yaw=max_yaw)[0]
            fine[place] |= can[inside]
            seen[place] |= np.isfinite(track.boxes[inside, 0])
            known = track.yaws[inside]
            yaws.setdefault(f"{kind}_yaws", []).extend(
                np.abs(known[np.isfinite(known)]).round(1).tolist()
            )
        counts[f"{kind}_frames"] += length
        counts[f"{kind}_seen"] += int(seen.sum())
        refused = ~fine if kind == "profile" else seen & ~fine
        counts[f"{kind}_refused"] += int(refused.sum())
    return {**counts, **yaws}


def placement_figures(look: Look) -> dict:
    """In pixels of a face of 256: how far points are from their target, and the jitter of the
    square."""
    lag: list[float] = []
    trembling: list[float] = []
    exact = SmoothAligner(SIDE)
    fps = float(probe(look.path).fps)
    for track in look.survey.tracks:
        seen = [None if np.isnan(points).any() else points.astype(float) for points in track.points]
        placements = list(aligner_for("smooth", SIDE, fps=fps).placements(iter(seen)))
        found = [
            (points, placement.matrix)
            for points, placement in zip(seen, placements, strict=True)
            if points is not None and placement is not None
        ]
        if len(found) < 3:
            continue
        placed = np.stack([transform(matrix, points) for points, matrix in found])
        own = np.stack([transform(exact.place(points).matrix, points) for points, _ in found])
        squares = np.stack([transform(invert(matrix), CORNERS) for _, matrix in found])
        scale = np.array([mean_scale(matrix) for _, matrix in found])
        lag += lags(placed, own).round(2).tolist()
        trembling += (jitter(squares) * scale[1:-1]).round(2).tolist()
    return {"lag": lag, "jitter": trembling}


def turn_figures(look: Look, label: Label, scorer: ActiveSpeakerScorer | None) -> dict:
    """Slots of 1/25 s in labelled turns, by the detected speaker."""
    if "turns" not in label:
        return {}
    video = probe(look.path)
    try:
        turns = who_speaks(video, look.survey, look.times, SpeakerChoice(scorer))
    except ValueError as error:
        return {"refused": str(error)}
    votes: dict[int, Counter] = {}
    tracks = named_tracks(look, label)
    for track, name in tracks:
        if name is not None:
            votes.setdefault(track.person, Counter())[name] += track.end - track.first
    names = {person: count.most_common(1)[0][0] for person, count in votes.items()}
    chosen, truth, num_faces = [], [], []
    starts = look.times.starts * float(look.times.time_base)
    for turn in label["turns"]:
        first, end = (round(seconds * SLOTS_PER_SECOND) for seconds in turn["seconds"])
        for slot in range(first, end):
            middle = (slot + 0.5) / SLOTS_PER_SECOND
            number = int(np.searchsorted(starts, middle, side="right")) - 1
            here = {n for track, n in tracks if track.first <= number < track.end}
            person = next((one.person for one in turns if one.start <= middle < one.end), None)
            if turn["person"] is None or turn["person"] in here:
                chosen.append(None if person is None else names.get(person, "unknown"))
                truth.append(turn["person"])
                num_faces.append(len(here))
    return dict(turn_accuracy(chosen, truth, num_faces))
