"""CPU seconds and memory of a manifest with many rows: load, shuffle, first item.

python bench/bench_manifest.py [rows, by default 1,000,000]

Read as Parquet, and as lines of JSON, each in a process of its own. The rows have the columns of
prepare.py. All clips are one, and only the files that are looked for are there.
"""

import json
import subprocess
import sys
import tempfile
import time
from math import ceil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from latentsync.data.dataset import ClipDataset
from latentsync.data.items import Items
from latentsync.data.manifest import MANIFEST_NAME, MAX_LOOKED_AT, TABLE_NAME, read_manifest
from latentsync.data.mixing import of_split
from latentsync.data.order import ShuffledSampler
from latentsync.data.tables import write_table
from latentsync.media.video import VideoWriter

NUM_ROWS = 1_000_000
NUM_FRAMES = 100
MEASURES = {
    "loudest_db": -23.4567, "level_db": -25.4321, "digital_silence": 0.0, "clipping": 0.0,
    "speech_share": 0.87654, "blur": 0.412345, "motion": 7.65432, "upscaling": 1.23456,
    "yaw": 12.3456, "sync_offset": 1.0, "sync_confidence": 6.54321, "person": "speaker-0001",
}  # fmt: skip


def write_set(folder: Path, num_rows: int) -> None:
    """A set of links to one clip."""
    for name in ("clips", "features"):
        (folder / name).mkdir(parents=True)
    with VideoWriter(folder / "one.mp4", fps=25, width=64, height=64) as writer:
        for level in range(NUM_FRAMES):
            writer.write(np.full((64, 64, 3), level, np.uint8))
    features = {
        "audio": torch.zeros(2 * NUM_FRAMES, 2, 80, dtype=torch.float16),
        "mel": torch.zeros(80, NUM_FRAMES * 640 // 200 + 1),
        "turn": torch.zeros(NUM_FRAMES),
    }
    save_file(features, folder / "one.safetensors")
    step = ceil(num_rows / MAX_LOOKED_AT)
    num_train = num_rows * 19 // 20
    first = next(iter(ShuffledSampler(num_train, seed=0)))
    rows = []
    with (folder / MANIFEST_NAME).open("w", encoding="utf-8") as manifest:
        for index in range(num_rows):
            name = f"recording-{index // 10:08x}_{index % 10:03d}"
            for kind, suffix in (("clips", "mp4"), ("features", "safetensors")):
                if index % step == 0 or index == first:
                    (folder / kind / f"{name}.{suffix}").symlink_to(f"../one.{suffix}")
            row = {
                "clip": f"clips/{name}.mp4", "features": f"features/{name}.safetensors",
                "num_frames": NUM_FRAMES, "source": f"/data/raw/speaker/{index // 10}.mp4",
                "start_frame": 100 * (index % 10), "resolution": 64, "fps": 25.0, **MEASURES,
                "split": "train" if index < num_train else "val",
            }  # fmt: skip
            manifest.write(json.dumps(row) + "\n")
            rows.append(row)
    write_table(rows, folder / TABLE_NAME, same_as=folder / MANIFEST_NAME)


def megabytes() -> float:
    """The most memory that this process has had (Linux); getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    if len(sys.argv) > 2:
        measure(Path(sys.argv[2]))
        return
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "set"
        write_set(folder, num_rows)
        # A process of its own, which has not written the set.
        for name in (TABLE_NAME, MANIFEST_NAME):
            print(name, f"{(folder / name).stat().st_size / 1e6:.0f} MB", flush=True)
            subprocess.run([sys.executable, __file__, "0", folder / name], check=True)


def measure(manifest: Path) -> None:
    before, start = megabytes(), time.process_time()

    def report(what: str) -> None:
        seconds, used = time.process_time() - start, megabytes()
        print(f"{what:<24} {seconds:6.2f} s CPU, {used - before:5.0f} MB more, {used:.0f} in all")

    clips = read_manifest(manifest, with_measures=False)
    report(f"{len(clips):,} clips read")
    clips = of_split(clips, "train", manifest)
    report(f"{len(clips):,} to train on")
    dataset = ClipDataset(clips, Items(num_frames=16))
    report("data set")
    index = next(iter(ShuffledSampler(len(dataset), seed=0)))
    report("shuffled")
    assert dataset[index]["skipped"] == 0
    report("first item")


if __name__ == "__main__":
    main()
