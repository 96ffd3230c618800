"""Drawn test speakers speaking with another's voice, and what the measuring networks say of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latentsync import demo_model_dir
from latentsync.data.manifest import read_manifest
from latentsync.diffusion.sampler import Sampler
from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.model import (
    Example,
    choose_clips,
    choose_driver,
    load_example,
)
from latentsync.metrics.correlation import OpeningLeak, TraitCorrelation
from latentsync.metrics.masked import MaskedPSNR, MaskedSSIM
from latentsync.metrics.sync import SyncFigures
from latentsync.metrics.temporal import Flicker
from latentsync.models import LipSyncModel, MouthReader, StableSyncNet, load_network
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline import to_pixels
from latentsync.pipeline.chunks import Run, cut_chunks
from latentsync.pipeline.generation import tokens_of

NUM_CLIPS, NUM_FRAMES, SEED = 8, 48, 1247
NUM_STEPS = 4  # of DPM-Solver++
METRICS = {
    "traits": TraitCorrelation(),
    "leak": OpeningLeak(),
    "sync": SyncFigures(),
    "psnr_inside": MaskedPSNR("inside"),
    "psnr_outside": MaskedPSNR("outside"),
    "ssim_inside": MaskedSSIM("inside"),
    "flicker": Flicker(),
}


@dataclass(frozen=True, slots=True)
class Face:
    """A test clip with the latents of its frames, masked and seen."""

    example: Example
    pixels: Float[Tensor, "1 f 3 h w"]
    masked: Float[Tensor, "f c x y"]
    seen: Float[Tensor, "f c x y"]


class Bench:
    """The same clips, voices, noise and judges for every model; the VAE must be one for all.

    The judges are those of the shipped demo: no run here learned from them.
    """

    def __init__(self, test_set: Path, resolution: int) -> None:
        clips = choose_clips(read_manifest(test_set), NUM_CLIPS, SEED)
        self.examples = [
            load_example(clip, resolution=resolution, max_frames=NUM_FRAMES) for clip in clips
        ]
        self.evaluator = Evaluator(
            ModelFormat(resolution=resolution),
            load_network(MouthReader, demo_model_dir() / "mouth_reader"),
            load_network(StableSyncNet, demo_model_dir() / "syncnet"),
            detector=None,
        )
        self.faces: list[Face] = []

    def measure(self, folder: Path, guidance: float, reference: str) -> dict[str, float]:
        """Every clip drawn with another's voice; means over the clips."""
        model = LipSyncModel.from_pretrained(folder)
        if not self.faces:
            self.faces = [encoded(example, model) for example in self.examples]
        sampler = Sampler("dpmpp", NUM_STEPS, guidance_scale=guidance, match_colours=False)
        row = Row(METRICS)
        for index, face in enumerate(self.faces):
            mine = face.example
            driver = choose_driver(self.examples, index, besides={mine.source})
            voice = self.examples[driver].voice
            drawn = generate_latents(
                model, face, voice.states, sampler, reference, seed=SEED + index
            )
            sample = self.evaluator.look(drawn, voice, own=mine.voice)
            sample |= self.evaluator.compare(drawn, mine.faces, same_speech=False)
            row.add(sample, clip=mine.name, speaker=mine.source)
        names = ("r_open", "r_width", "sync", "sync_confidence", "in_over_off", "leak", "flicker")
        summary = row.summary()
        return {name: round(summary[name], 4) for name in names}

    def bounds(self, folder: Path) -> dict[str, dict[str, float]]:
        """What no UNet can be better than, the truth through the VAE, and what speaking without
        listening gives: the source's own mouth against another's voice."""
        model = LipSyncModel.from_pretrained(folder)
        rows = {name: Row(METRICS) for name in ("truth through the VAE", "source, unchanged")}
        truth, copied = rows.values()
        for index, example in enumerate(self.examples):
            driver = choose_driver(self.examples, index, besides={example.source})
            pixels = to_pixels(example.faces)
            seen = levels(model.decode(model.encode(pixels)).detach())
            sample = self.evaluator.look(seen, example.voice, own=None)
            sample |= self.evaluator.compare(seen, example.faces, same_speech=True)
            truth.add(sample, clip=example.name, speaker=example.source)
            voice = self.examples[driver].voice
            sample = self.evaluator.look(example.faces, voice, own=example.voice)
            copied.add(sample, clip=example.name, speaker=example.source)
        return {name: row.summary() for name, row in rows.items()}


def encoded(example: Example, model: LipSyncModel) -> Face:
    pixels = to_pixels(example.faces)
    masked, seen = (rearrange(part, "1 c f x y -> f c x y") for part in model.encode_faces(pixels))
    return Face(example, pixels, masked, seen)


@torch.no_grad()
def generate_latents(
    model: LipSyncModel,
    face: Face,
    states: Float[Tensor, "n l d"],
    sampler: Sampler,
    reference: str,
    seed: int,
) -> np.ndarray:
    """The faces in windows that do not overlap, all from one noise; uint8, frame first."""
    length = model.format.num_frames
    run = Run(0, 0, 0, len(face.masked), np.ones(len(face.masked), dtype=np.float32))
    seen_at = "self" if reference == "own" else "previous"
    windows = cut_chunks([run], length=length, overlap=0, reference=seen_at)
    noise = model.sample_noise(torch.Generator().manual_seed(seed))

    def of(frames: Tensor, indices: list[np.ndarray]) -> Tensor:
        return rearrange(frames[np.stack(indices)], "b f c x y -> b c f x y")

    slots = [window.slots for window in windows]
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.generate_latents(
            of(face.masked, slots),
            of(face.seen, [window.reference for window in windows]),
            torch.stack([tokens_of(states, part, model) for part in slots]),
            sampler=sampler,
            noise=noise.expand(len(windows), -1, -1, -1, -1),
        )
    pixels = rearrange(face.pixels[0][np.stack(slots)], "b f c h w -> b f c h w")
    shown = model.finish(latents.float(), pixels, sampler=sampler)
    return levels(shown)


def levels(pixels: Float[Tensor, "b f 3 h w"]) -> np.ndarray:
    """Pixels, about in [-1, 1] => uint8 faces, one clip's frames in a row."""
    shown = (rearrange(pixels, "b f c h w -> (b f) h w c") + 1) * 127.5
    return shown.round().clamp(0, 255).byte().numpy()
