"""What an adaptation to one speaker taught: the held-out seconds before and after it, beside what
the VAE alone allows."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.data.stores import map_tensors
from latentsync.diffusion.sampler import Sampler
from latentsync.evaluation.adapted_page import AdaptedPage
from latentsync.evaluation.followed import follow
from latentsync.evaluation.landmarks import read_lips
from latentsync.faces import FaceDetector, load_mask, paint_weights
from latentsync.files import publish
from latentsync.media.video import VideoWriter, open_clip, read_frames
from latentsync.metrics.artefacts import sharpness
from latentsync.metrics.correlation import pearson
from latentsync.metrics.lips import shape_of
from latentsync.metrics.masked import masked_psnr
from latentsync.metrics.temporal import flicker
from latentsync.models.adapted import recording_of
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import generate_clip, to_pixels

Faces = UInt8[np.ndarray, "f r r 3"]

log = logging.getLogger(__name__)

MIN_CEILING = 0.9  # r(opening) of the truth through the VAE with the truth; see docs/adapt.md
OVERLAP = 4  # frames shared by consecutive windows, as in infer.py
CRF = 14  # everything is measured after one encode, as a viewer gets it
TRUTH, CEILING = "truth", "truth through the VAE"
BEFORE, BEFORE_OTHER = "before, own voice", "before, another sentence"
OWN, OTHER = "after, own voice", "after, another sentence"
FILES = {
    TRUTH: "truth",
    CEILING: "ceiling",
    BEFORE: "before",
    BEFORE_OTHER: "before_other",
    OWN: "own",
    OTHER: "other",
}


@dataclass(frozen=True, slots=True)
class Speech:
    """A prepared clip: its faces, and the audio states of the model's encoder."""

    path: Path
    faces: Faces
    states: Float[Tensor, "n l d"]
    fps: float

    @classmethod
    def of(cls, clip: Clip) -> Self:
        frames = open_clip(clip.path).frames(np.arange(clip.num_frames))
        states = map_tensors(clip.states_path or clip.features_path)["audio"].float()
        return cls(clip.path, frames, states, clip.fps)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the held-out seconds: Pearson's r of the opening with the wanted mouth's, how sure it is
    (`Followed`: interval, chance, offset in frames), that of the width, and of the opening with the
    source's own; its spread, PSNR inside the mask (dB), sharpness and flicker (truth: 1)."""

    r_open: float
    r_open_low: float
    r_open_high: float
    chance: float
    offset: float
    r_width: float
    r_source: float
    spread_open: float
    psnr_inside: float
    sharpness: float
    flicker: float


@dataclass(frozen=True, slots=True)
class Track:
    """Faces as a viewer gets them, and opening and width of their mouths."""

    faces: Faces
    mouths: Float[Tensor, "f 2"]


@dataclass(frozen=True)
class Bench:
    """Measures results on the faces of held-out clips; results are written to `folder`."""

    folder: Path
    detector: FaceDetector
    sampler: Sampler
    seed: int

    def spoken(self, model: LipSyncModel, speech: Speech, voice: Speech) -> Faces:
        """The faces redrawn by a model to a voice, whose sound may be of another clip."""
        length = min(len(speech.faces), len(voice.faces))
        faces = speech.faces[:length]
        generated = generate_clip(
            faces,
            voice.states,
            model=model,
            sampler=self.sampler.suited_to(model.process),
            seed=self.seed,
            overlap=OVERLAP,
        )
        return pasted(generated, faces, model)

    def through_vae(self, model: LipSyncModel, speech: Speech) -> Faces:
        """The faces themselves, their painted part through the VAE: what no UNet can exceed."""
        with torch.no_grad():
            decoded = model.decode(model.encode(to_pixels(speech.faces)))[0]
        levels = ((decoded.permute(0, 2, 3, 1) + 1) * 127.5).numpy()
        return pasted(levels, speech.faces, model)

    def written(self, faces: Faces, voice: Speech, name: str) -> Track:
        """The faces after one encode."""
        path = self.folder / f"{name}.mp4"
        height, width = faces.shape[1:3]
        with VideoWriter(
            path,
            fps=voice.fps,
            width=width,
            height=height,
            crf=CRF,
            audio=voice.path,
            audio_seconds=len(faces) / voice.fps,
        ) as writer:
            for face in faces:
                writer.write(face)
        seen = np.stack(list(read_frames(path)))
        return Track(seen, shape_of(read_lips(seen, self.detector)))


def pasted(levels: Num[np.ndarray, "f r r 3"], faces: Faces, model: LipSyncModel) -> Faces:
    """The painted part over the faces, with the soft edge that `infer.py` gives it."""
    weights = paint_weights(model.format.mask, model.format.resolution)[..., None]
    return np.rint(weights * levels + (1 - weights) * faces).clip(0, 255).astype(np.uint8)


def figures_of(
    tracks: Sequence[Track], wanted: Sequence[Track], source: Sequence[Track], *, mask: str
) -> Figures:
    """The figures of results, over all frames of all clips: they show one person."""
    mouths, target, own = (
        torch.cat([mouths[:length] for mouths, length in zip(each, lengths(tracks), strict=True)])
        for each in ([track.mouths for track in group] for group in (tracks, wanted, source))
    )
    pairs = [
        (to_pixels(track.faces), to_pixels(truth.faces[: len(track.faces)]))
        for track, truth in zip(tracks, source, strict=True)
    ]
    regions = [inside(mask, pixels) for pixels, _ in pairs]
    psnr, sharp, unsteady = (
        [float(measure(*pair, region)) for pair, region in zip(pairs, regions, strict=True)]
        for measure in (masked_psnr, sharpness, flicker)
    )
    followed = follow(
        [
            (track.mouths[:length, 0].numpy(), other.mouths[:length, 0].numpy())
            for track, other, length in zip(tracks, wanted, lengths(tracks), strict=True)
        ]
    )
    return Figures(
        r_open=followed.r,
        r_open_low=followed.low,
        r_open_high=followed.high,
        chance=followed.chance,
        offset=followed.offset,
        r_width=correlation(mouths[:, 1], target[:, 1]),
        r_source=correlation(mouths[:, 0], own[:, 0]),
        spread_open=float(np.nanstd(mouths[:, 0].numpy())),
        psnr_inside=float(np.mean(psnr)),
        sharpness=float(np.mean(sharp)),
        flicker=float(np.mean(unsteady)),
    )


def lengths(tracks: Sequence[Track]) -> list[int]:
    return [len(track.faces) for track in tracks]


def inside(mask: str, pixels: Float[Tensor, "1 f 3 h w"]) -> Float[Tensor, "1 f 1 h w"]:
    """1 where the mask is painted."""
    painted = torch.from_numpy(load_mask(mask, pixels.shape[-1]).copy()) < 0.5
    return painted.float().expand(1, pixels.shape[1], 1, -1, -1)


def correlation(one: Float[Tensor, " f"], other: Float[Tensor, " f"]) -> float:
    """Pearson's r over the frames where both mouths are seen; NaN if there are too few."""
    seen = ~(one.isnan() | other.isnan())
    return float(pearson(one[seen], other[seen])) if seen.sum() > 2 else float("nan")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Clips of the speaker that were not trained on, and another sentence for each of them."""

    clips: list[Speech]
    others: list[Speech]

    @classmethod
    def of(cls, held_out: Sequence[Clip], trained: Sequence[Clip]) -> Self:
        """The other sentences are those of the longest clips, in order."""
        longest = sorted(trained, key=lambda clip: -clip.num_frames)
        others = [longest[index % len(longest)] for index in range(len(held_out))]
        return cls([Speech.of(clip) for clip in held_out], [Speech.of(clip) for clip in others])


def report_adaptation(
    folder: Path,
    held_out: HeldOut,
    *,
    before: LipSyncModel,
    after: LipSyncModel,
    sampler: Sampler,
    detector: FaceDetector,
    seed: int,
) -> dict[str, Figures]:
    """Measure, and write figures.json, report.html and the videos it shows. Openings are not
    compared with a held-out mouth whose opening the VAE alone changes."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, detector, sampler, seed)
    tracks = tracks_of(bench, held_out, before, after)
    wanted = dict.fromkeys(tracks, tracks[TRUTH])
    wanted[OTHER] = wanted[BEFORE_OTHER] = [
        Track(other.faces, shape_of(read_lips(other.faces, detector))) for other in held_out.others
    ]
    mask = after.format.mask
    figures = {
        name: figures_of(each, wanted[name], tracks[TRUTH], mask=mask)
        for name, each in tracks.items()
    }
    # The sentence is another one: there is no truth to compare its pictures with.
    for name in (BEFORE_OTHER, OTHER):
        figures[name] = replace(figures[name], psnr_inside=float("nan"))
    doubt = doubt_of(figures[CEILING].r_open)
    if doubt is not None:
        log.warning("%s", doubt)
        figures |= {name: unjudged(figures[name]) for name in (BEFORE, OWN)}
    write_figures(folder / "figures.json", figures)
    openings = {name: each[0].mouths[:, 0].numpy() for name, each in tracks.items()}
    page = AdaptedPage(
        video=(recording_of(after) or {}).get("video", "one speaker"),
        doubt=doubt,
        rows={name: [value for _, value in items(each)] for name, each in figures.items()},
        strips={name: each[0].faces for name, each in tracks.items()},
        openings={
            OWN: (openings[TRUTH], openings[OWN]),
            OTHER: (wanted[OTHER][0].mouths[:, 0].numpy(), openings[OTHER]),
        },
    )
    page.write(folder / "report.html", videos={name: f"{FILES[name]}_0.mp4" for name in tracks})
    return figures


def doubt_of(ceiling: float) -> str | None:
    """Why openings of the held-out mouth cannot be compared, if the VAE alone changes them."""
    if ceiling >= MIN_CEILING:
        return None
    return (
        f"r(opening) with the held-out mouth is not valid here: even the truth through the VAE has "
        f"{ceiling:.2f}, {MIN_CEILING} are needed. Either this mouth hardly moves, or the VAE has "
        "not learned it; hold out another part, adapt.held_out=, or train the VAE on"
    )


def unjudged(figures: Figures) -> Figures:
    """Without what compares openings."""
    names = ("r_open", "r_open_low", "r_open_high", "chance", "offset", "r_source")
    return replace(figures, **dict.fromkeys(names, float("nan")))


def tracks_of(
    bench: Bench, held_out: HeldOut, before: LipSyncModel, after: LipSyncModel
) -> dict[str, list[Track]]:
    """Results by name, one for each held-out clip."""
    tracks: dict[str, list[Track]] = {}
    for number, (own, other) in enumerate(zip(held_out.clips, held_out.others, strict=True)):
        results = {
            TRUTH: (own.faces, own),
            CEILING: (bench.through_vae(after, own), own),
            BEFORE: (bench.spoken(before, own, own), own),
            BEFORE_OTHER: (bench.spoken(before, own, other), other),
            OWN: (bench.spoken(after, own, own), own),
            OTHER: (bench.spoken(after, own, other), other),
        }
        for name, (faces, voice) in results.items():
            track = bench.written(faces, voice, f"{FILES[name]}_{number}")
            tracks.setdefault(name, []).append(track)
    return tracks


def write_figures(path: Path, figures: Mapping[str, Figures]) -> None:
    """Write JSON; what is not finite becomes null."""
    rows = {
        name: {key: round(value, 4) if np.isfinite(value) else None for key, value in items(each)}
        for name, each in figures.items()
    }
    with publish(path) as partial:
        partial.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def items(figures: Figures) -> list[tuple[str, float]]:
    return [(name, getattr(figures, name)) for name in Figures.__dataclass_fields__]
