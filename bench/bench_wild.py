"""How well shots, faces, persons and turns of labelled real clips are detected, and at what cost.

`python bench/bench_wild.py FOLDER [--out wild.json]`. FOLDER contains the clips under `clips/` and
`labels.json`, a mapping from their names to labels, described in docs/real_clips.md. Each clip is
analyzed once, as by `infer.py`; `--sections cuts` detects only shots, `--clips a.mp4` selects
clips. Figures are sums over clips; `photo` excludes drawings and games.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm
from wild_figures import SECTIONS, Look, figures_of, totals

from latentsync.cli.command import conf_dir
from latentsync.faces import FaceDetector
from latentsync.faces.occlusion import default_masker
from latentsync.faces.tracking.shots import ShotDetector, shots_of
from latentsync.faces.tracking.survey import Shot, Survey, survey
from latentsync.media.frame import UnreadFrame
from latentsync.media.frame_reader import TimesLog, unread_frames
from latentsync.media.video import probe
from latentsync.models.speaker_scorers import ActiveSpeakerScorer, LRASDScorer
from latentsync.pipeline.analysis import aligner_for
from latentsync.weights.lr_asd import load_official_lr_asd


def main() -> None:
    options = parse()
    labels = json.loads((options.folder / "labels.json").read_text(encoding="utf-8"))
    unknown = set(options.clips or ()) - set(labels)
    if unknown:
        raise SystemExit(f"--clips: {options.folder}/labels.json does not name {sorted(unknown)}")
    names = sorted(options.clips or labels)
    measure = partial(measure_clip, options.folder / "clips", options)
    with ProcessPoolExecutor(options.workers) as pool:
        measured = pool.map(measure, names, [labels[name] for name in names])
        bar = tqdm(zip(names, measured, strict=True), total=len(names), unit="clip")
        clips = dict(bar)
    kinds = {name: labels[name]["kind"] for name in names}
    photos = {name: clips[name] for name in names if kinds[name] == "photo"}
    result = {
        "faces": options.faces,
        "lr_asd": options.lr_asd is not None,
        "all": totals(clips),
        "photo": totals(photos),
        "clips": clips,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for part in ("photo", "all"):
        print(part)
        for section, figures in result[part].items():
            print(f"  {section:11} {json.dumps(figures)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("folder", type=Path, help="labels.json and clips/")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--clips", nargs="+", help="file names; without: all that are labelled")
    parser.add_argument("--faces", default=default_faces(), help="a file of conf/faces")
    parser.add_argument("--lr-asd", type=Path, help="weights of LR-ASD for the turns")
    parser.add_argument("--max-yaw", type=float, default=60, help="as faces.max_yaw")
    parser.add_argument("--workers", type=int, default=1, help="clips at a time")
    return parser.parse_args()


def default_faces() -> str:
    """The default detector of `infer.py`."""
    defaults = OmegaConf.load(conf_dir() / "infer.yaml").defaults
    return next(entry["faces"] for entry in defaults if "faces" in entry)


def measure_clip(folder: Path, options: argparse.Namespace, name: str, label: dict) -> dict:
    """The figures of one clip, computed with one thread."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    path = folder / name
    if set(options.sections) == {"cuts"}:
        look = look_for_shots(path)
    else:
        config = OmegaConf.load(conf_dir() / "faces" / f"{options.faces}.yaml")
        look = look_at(path, instantiate(config))
    scorer: ActiveSpeakerScorer | None = None
    if options.lr_asd:
        scorer = LRASDScorer(load_official_lr_asd(options.lr_asd))
    hides = "occlusion" in options.sections and label["occlusion_spans"]
    return figures_of(
        look,
        label,
        sections=options.sections,
        max_yaw=options.max_yaw,
        scorer=scorer,
        masker=default_masker() if hides else None,
    )


class Clock:
    """CPU seconds of this process by stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def run(self, stage: str, call: Callable) -> object:
        started = time.process_time()
        result = call()
        self.seconds[stage] += time.process_time() - started
        return result


def look_at(path: Path, detector: FaceDetector) -> Look:
    """Analyze a clip like a run does. Shots are detected once more, to time them."""
    clock, log, shots = Clock(), TimesLog(probe(path).time_base), ShotDetector()

    def pictures() -> Iterator[UnreadFrame]:
        unread = unread_frames(path, quick=True)
        while (item := clock.run("decode", partial(next, unread, None))) is not None:
            start, duration, frame = item
            log.add(start, duration)
            clock.run("shots", partial(shots, frame))
            yield frame

    points_of = aligner_for("smooth", 256, fps=25).points_of
    found = clock.run("all", partial(survey, pictures(), detector, points_of))
    seconds = dict(clock.seconds)
    # Once within the survey, once separately.
    seconds["faces"] = seconds["all"] - seconds["decode"] - 2 * seconds["shots"]
    return Look(path, found, log.times(), seconds)


def look_for_shots(path: Path) -> Look:
    """The same without faces."""
    clock, log = Clock(), TimesLog(probe(path).time_base)

    def pictures() -> Iterator[UnreadFrame]:
        unread = unread_frames(path, quick=True)
        while (item := clock.run("decode", partial(next, unread, None))) is not None:
            log.add(*item[:2])
            yield item[2]

    lengths = clock.run("all", lambda: [sum(1 for _ in shot) for shot in shots_of(pictures())])
    ends = np.cumsum(lengths).tolist()
    shots = [Shot(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    seconds = dict(clock.seconds)
    seconds["shots"] = seconds["all"] - seconds["decode"]
    return Look(path, Survey(sum(lengths), shots, []), log.times(), seconds)


if __name__ == "__main__":
    main()
