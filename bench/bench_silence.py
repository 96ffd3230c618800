"""Does the mouth close while the voice is silent? Fraction of closed frames over 3 s of silence.

`python bench/bench_silence.py [--sampler balanced]`. Synthetic speakers who talk in the video get a
voice with 3 s of silence (or of quiet noise) in its middle, with the shipped model. The opening is
measured by the mesh and mapped to the ground truth's scale, 0 to 1, by a linear fit on the source.
Baseline: the source in the same frames, which continues talking.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from inputs import FACE_SEED, FPS, load_sampler
from jaxtyping import Float

from latentsync import LipSyncModel, demo_model_dir, lipsync
from latentsync.data.synthetic import read_truth, render_clip
from latentsync.faces import MeshDetector, mouth_shape, track
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import read_frames
from latentsync.metrics.mouth import CLOSED_BELOW

SIZE = 256
SECONDS, SILENT_FROM, SILENT_UNTIL = 7.0, 2.0, 5.0
NOISES = {"digital silence": 0.0, "noise at -60 dB": 1e-3}
LEAST = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sampler", default="dpmpp_8", help="of conf/sampler")
    parser.add_argument("--speakers", type=int, default=2)
    options = parser.parse_args()
    model, sampler = LipSyncModel.from_pretrained(demo_model_dir()), load_sampler(options.sampler)
    detector = MeshDetector()
    shares: dict[str, list[float]] = {}
    silent = slice(round(SILENT_FROM * FPS), round(SILENT_UNTIL * FPS))
    for index in range(options.speakers):
        with tempfile.TemporaryDirectory() as name:
            folder, seed = Path(name), FACE_SEED + 2 * index
            video = render_clip(folder / "face", seed=seed, seconds=SECONDS, size=SIZE)
            render_clip(folder / "voice", seed=seed + 1, seconds=SECONDS, size=64)
            truth = read_truth(video)["open"]
            source = mesh_openings(video, detector)
            slope, least = np.polyfit(truth, source, 1)
            agree = float(np.corrcoef(truth, source)[0, 1])
            print(f"speaker {seed}: the mesh reads the drawn opening with r = {agree:.3f}")
            read = {"source": (source - least) / slope}
            for noise, level in NOISES.items():
                audio, out = folder / f"{level}.wav", folder / f"{level}.mp4"
                write_wav(audio, with_silence(read_waveform(folder / "voice.wav"), level))
                lipsync(video, audio, out, model=model, detector=detector, sampler=sampler)
                read[noise] = (mesh_openings(out, detector) - least) / slope
        shares.setdefault("drawn closed", []).append(
            float((read["source"][truth < CLOSED_BELOW / 3] < CLOSED_BELOW).mean())
        )
        for way, openings in read.items():
            shares.setdefault(way, []).append(float((openings[silent] < CLOSED_BELOW).mean()))
    print(f"{options.sampler}: share of frames with an opening under {CLOSED_BELOW}")
    print(f"{'drawn closed':16} {np.mean(shares.pop('drawn closed')):.3f} (how far to trust it)")
    for way, each in shares.items():
        print(f"{way:16} {np.mean(each):.3f} (each: {', '.join(f'{share:.3f}' for share in each)})")
    print(f"(at least {LEAST})")


def with_silence(waveform: torch.Tensor, level: float) -> torch.Tensor:
    """The sound with its middle part replaced by noise of that level."""
    generator = torch.Generator().manual_seed(0)
    sound = waveform + level * torch.randn(len(waveform), generator=generator)
    silent = slice(round(SILENT_FROM * 16000), round(SILENT_UNTIL * 16000))
    sound[silent] -= waveform[silent]
    return sound


def mesh_openings(video: Path, detector: MeshDetector) -> Float[np.ndarray, " f"]:
    """Distance of the inner lips over that of the eyes; every synthetic frame has a face."""
    faces = track(read_frames(video), detector)
    return np.array([mouth_shape(face).opening if face else np.nan for face in faces])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
