"""Seconds per stage of one lip-sync with the shipped model: DPM-Solver++ in 10 steps against the
official DDIM in 20 (the baseline), same video, same run. `python bench/samplers.py`
"""

import tempfile
from pathlib import Path

import torch

from latentsync import LipSyncModel, demo_model_dir, lipsync
from latentsync.data.synthetic import render_clip
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import MeshDetector

BASELINE = Sampler("ddim", num_steps=20, guidance_scale=1.5)
CANDIDATE = Sampler("dpmpp", num_steps=10, guidance_scale=1.5)
SECONDS = 4.0
SIZE = 256


def main() -> None:
    model = LipSyncModel.from_pretrained(demo_model_dir())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, detector = model.to(device), MeshDetector()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render_clip(folder / "face", seed=900001, seconds=SECONDS, size=SIZE)
        render_clip(folder / "voice", seed=900002, seconds=SECONDS, size=SIZE)
        seconds = []
        for index, sampler in enumerate((BASELINE, CANDIDATE)):
            report = lipsync(
                folder / "face.mp4",
                folder / "voice.wav",
                folder / f"{index}.mp4",
                model=model,
                detector=detector,
                sampler=sampler,
            )
            seconds.append({**report.stage_seconds, "total": report.total_seconds})
    print(f"{SECONDS:.0f} s of {SIZE}x{SIZE} video on {device}, {torch.get_num_threads()} threads")
    print(f"{'stage':10} {'ddim 20':>9} {'dpmpp 10':>9} {'ratio':>6}")
    for stage, baseline in seconds[0].items():
        candidate = seconds[1][stage]
        print(f"{stage:10} {baseline:9.2f} {candidate:9.2f} {baseline / candidate:6.2f}")


if __name__ == "__main__":
    main()
