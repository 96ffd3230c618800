"""Does the mouth jump between chunks?

`python bench/bench_seams.py [--sampler balanced --overlap 4]`. Synthetic speakers, another voice,
the shipped model. The same video is generated twice, the second time starting half a chunk later,
so that chunk borders of one run lie inside a chunk of the other and the same pairs of frames can be
compared. `plain` is the mean difference of neighbouring frames (levels, around the mouth) at
borders over that inside chunks of the same run; it also depends on what the voice says there.
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from inputs import FACE_SEED, FPS, load_sampler
from jaxtyping import Float

from latentsync import LipSyncModel, demo_model_dir, lipsync
from latentsync.data.synthetic import read_truth, render_clip
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import MeshDetector
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, read_frames
from latentsync.pipeline.chunks import Run, cut_chunks

SIZE = 256
MOST = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sampler", default="dpmpp_8", help="of conf/sampler")
    parser.add_argument("--overlap", type=int, default=4, help="frames that windows share")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--speakers", type=int, default=2)
    options = parser.parse_args()
    overlap = options.overlap
    model, sampler = LipSyncModel.from_pretrained(demo_model_dir()), load_sampler(options.sampler)
    at_borders, inside, plain = 0.0, 0.0, []
    for index in range(options.speakers):
        with tempfile.TemporaryDirectory() as name:
            seed = FACE_SEED + 2 * index
            drawn = draw_pair(Path(name), seed, options.seconds)
            pair = differences(drawn, model, sampler, overlap)
        borders, steps = zip(*pair, strict=True)
        for own, other in ((0, 1), (1, 0)):
            only = borders[own] & ~borders[other]
            at_borders += float(steps[own][only].sum())
            inside += float(steps[other][only].sum())
            plain.append(float(steps[own][borders[own]].mean() / steps[own][~borders[own]].mean()))
        print(f"speaker {seed}: plain {plain[-2]:.3f} and {plain[-1]:.3f}")
    print(f"{options.sampler}, overlap {overlap}: plain {np.mean(plain):.3f}")
    print(f"at borders over the same frames inside a window: {at_borders / inside:.3f}")
    print(f"(at most {MOST})")


def draw_pair(folder: Path, seed: int, seconds: float) -> Path:
    """Path without suffix of a synthetic face whose voice is another's."""
    render_clip(folder / "face", seed=seed, seconds=seconds, size=SIZE)
    render_clip(folder / "voice", seed=seed + 1, seconds=seconds, size=64)
    return folder / "face"


def differences(
    stem: Path, model: LipSyncModel, sampler: Sampler, overlap: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For both runs: which frame-to-frame steps cross chunk borders, and the size of all steps.

    Only steps between frames that both runs have.
    """
    frames = list(read_frames(stem.with_suffix(".mp4")))
    points = read_truth(stem.with_suffix(".mp4"))["points"]
    waveform = read_waveform(stem.with_name("voice.wav"))
    length = model.format.num_frames
    shift = (length - overlap) // 2
    pair = []
    for skipped in (0, shift):
        video, audio = (stem.with_name(f"{skipped}{suffix}") for suffix in (".mp4", ".wav"))
        with VideoWriter(video, fps=FPS, width=SIZE, height=SIZE, crf=10) as writer:
            for frame in frames[skipped:]:
                writer.write(frame)
        write_wav(audio, waveform[skipped * 16000 // FPS :])
        out = video.with_suffix(".out.mp4")
        lipsync(
            video,
            audio,
            out,
            model=model,
            detector=MeshDetector(),
            sampler=sampler,
            crf=10,
            overlap=overlap,
        )
        spoken = list(read_frames(out))
        steps = mouth_steps(spoken, points[skipped:])
        borders = border_steps(len(spoken), length, overlap)
        # In the first frames the second run's first chunk and its smoothing only begin.
        first = shift + length - skipped
        last = len(frames) - length - skipped
        pair.append((borders[first:last], steps[first:last]))
    return pair


def mouth_steps(
    frames: list[np.ndarray], points: Float[np.ndarray, "f 3 2"]
) -> Float[np.ndarray, " f"]:
    """Mean difference around the mouth between each frame and the previous one, in levels; the
    first is 0."""
    steps = np.zeros(len(frames))
    for index in range(1, len(frames)):
        box = mouth_box(points[index])
        now, before = (frames[place][box].astype(np.int16) for place in (index, index - 1))
        steps[index] = np.abs(now - before).mean()
    return steps


def mouth_box(points: Float[np.ndarray, "3 2"]) -> tuple[slice, slice]:
    """Rows and columns around the mouth, derived from brows and nose."""
    eyes = float(np.linalg.norm(points[1] - points[0]))
    x, y = points[2]
    rows = slice(round(float(y + 0.15 * eyes)), round(float(y + 1.1 * eyes)))
    return rows, slice(round(float(x - 0.6 * eyes)), round(float(x + 0.6 * eyes)))


def border_steps(num_frames: int, length: int, overlap: int) -> np.ndarray:
    """For each frame, whether the step to it leads from one chunk towards the next."""
    run = Run(0, 0, 0, num_frames, np.ones(num_frames, dtype=np.float32))
    chunks = cut_chunks([run], length=length, overlap=overlap)
    borders = np.zeros(num_frames, dtype=bool)
    for before, after in pairwise(sorted(chunks, key=lambda window: window.first)):
        borders[after.first : before.end + 1] = True
    return borders


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
