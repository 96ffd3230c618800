"""Items per second of the loader and of the official recipe, on the same clips, in one process.

`python bench/bench_loader.py [--items 200]`. Four synthetic clips of 256x256, 10 s, 25 fps. The
recipe (COMPATIBILITY 1.11, 1.13, reimplemented here): decord opens the clip for every item and
reads two windows of 16 frames, torchvision converts frames to floats, masked frames are float64,
and the mel of the whole sound is computed from the file. Ours is a `ClipDataset` as used by a
loader without workers: with pixels from each of its two readers, and with stored latents, from
files and from the archives of stage=shards. Those two are also compared in turns, by CPU time and
by the clock: with clips that stay open, as in a small set, and with clips that are opened for every
item, as in a set of more clips than a worker keeps open (48 names for the same four).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from decord import VideoReader
from inputs import wait_passively
from safetensors.torch import save_file
from torch import Tensor

from latentsync.data import Clip, ClipDataset, Items, read_manifest, write_manifest
from latentsync.data.clips import LATENTS_FOLDER
from latentsync.data.synthetic import render_clip
from latentsync.faces.mask import load_mask
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.mel import mel_spectrogram, mel_window
from latentsync.media.video import VideoWriter, read_frames
from latentsync.prepare import write_shards
from latentsync.prepare.features import COLOUR, KEYFRAME_INTERVAL, TUNE

SIZE, FPS, FRAMES, NUM_CLIPS, SECONDS = 256, 25, 16, 4, 10
ROUNDS = 12
NUM_NAMES = 48


def main() -> None:
    wait_passively()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder))
        pixels = ClipDataset(clips, Items(samples_per_clip=10**6, packed=True))
        by_decord = ClipDataset(clips, Items(samples_per_clip=10**6, packed=True, reader="decord"))
        latents = ClipDataset(
            clips, Items(samples_per_clip=10**6, packed=True,
            with_pixels=False, with_latents=True, with_mel=False,))  # fmt: skip
        rng = np.random.default_rng(0)
        write_shards(Path(folder), megabytes=20)
        archived = read_manifest(Path(folder), shards=True)
        pixels_archived = ClipDataset(archived, Items(samples_per_clip=10**6, packed=True))
        latents_archived = ClipDataset(archived, latents.items)
        official = rate(lambda index: official_item(clips[index % NUM_CLIPS], rng), options.items)
        print(f"{'official recipe':28} {official:8.1f} items/s", flush=True)
        for name, dataset in (
            ("ours, pixels and mel", pixels),
            ("the same, archives", pixels_archived),
            ("ours, reader=decord", by_decord),
            ("ours, stored latents", latents),
            ("the same, archives", latents_archived),
        ):
            items = options.items * (1 if dataset.items.with_pixels else 20)
            ours = rate(dataset.__getitem__, items)
            print(f"{name:28} {ours:8.1f} items/s  {ours / official:6.1f} x", flush=True)
        compare(Path(folder), options.items)


def compare(folder: Path, num_items: int) -> None:
    """Print how much faster items are read from archives than from files."""
    many = with_more_names(folder)
    write_shards(many, megabytes=100)
    pixels = Items(samples_per_clip=10**6, packed=True)
    latents = replace(pixels, with_pixels=False, with_latents=True, with_mel=False)
    compare_items("pixels", pixels, folder, many, num_items // 4)
    compare_items("latents", latents, folder, many, num_items * 20 // 4)


def compare_items(name: str, items: Items, few: Path, many: Path, num_items: int) -> None:
    files, archives = (
        ClipDataset(clips, items) for clips in (read_manifest(few), read_manifest(few, shards=True))
    )
    stay_open = paired(lambda: files, lambda: archives, num_items)
    opened = paired(
        lambda: ClipDataset(read_manifest(many), items),
        lambda: ClipDataset(read_manifest(many, shards=True), items),
        NUM_NAMES,
    )
    for state, (cpu, wall) in (("clips stay open", stay_open), ("clips are opened", opened)):
        print(
            f"{name}, {state}: archives give {cpu:.3f} of the items of files per CPU second, "
            f"{wall:.3f} by the clock",
            flush=True,
        )


def with_more_names(folder: Path) -> Path:
    """The same clips as a set of more: links to their files."""
    many = folder / "many"
    clips = read_manifest(folder / "manifest.jsonl")
    (vae,) = (folder / LATENTS_FOLDER).iterdir()
    for parent in ("clips", "features", f"{LATENTS_FOLDER}/{vae.name}"):
        (many / parent).mkdir(parents=True)
    named = []
    for number in range(NUM_NAMES):
        clip, name = clips[number % len(clips)], f"clip{number}"
        path = many / "clips" / f"{name}.mp4"
        features_path = many / "features" / f"{name}.safetensors"
        os.link(clip.path, path)
        os.link(clip.features_path, features_path)
        os.link(
            vae / f"{clip.name}.safetensors", many / LATENTS_FOLDER / vae.name / features_path.name
        )
        named.append(replace(clip, path=path, features_path=features_path))
    write_manifest(named, many / "manifest.jsonl")
    return many


def paired(
    first: Callable[[], ClipDataset], second: Callable[[], ClipDataset], num_items: int
) -> tuple[float, float]:
    """How much more CPU time, and time, the first takes for the same items; medians of
    alternating rounds, each of the data sets that are made for it."""
    ratios = []
    for number in range(ROUNDS):
        makers = (first, second) if number % 2 else (second, first)
        spent = {}
        for make in makers:
            dataset = make()
            begun = np.array([time.process_time(), time.perf_counter()])
            for index in range(number * num_items, (number + 1) * num_items):
                dataset[index]
            spent[make] = np.array([time.process_time(), time.perf_counter()]) - begun
        ratios.append(spent[first] / spent[second])
    cpu, wall = np.median(ratios, axis=0)
    return float(cpu), float(wall)


def rate(make: Callable[[int], object], num_items: int) -> float:
    """Items per second, excluding the first ones."""
    for index in range(2 * NUM_CLIPS):
        make(index)
    begun = time.perf_counter()
    for index in range(num_items):
        make(index)
    return num_items / (time.perf_counter() - begun)


def official_item(clip: Clip, rng: np.random.Generator) -> dict[str, Tensor]:
    """One item, made like in the published loader."""
    reader = VideoReader(str(clip.path))
    total = len(reader)
    start = int(rng.integers(total - FRAMES + 1))
    away = [other for other in range(total - FRAMES + 1) if abs(other - start) >= FRAMES]
    other = int(rng.choice(away))
    truth = reader.get_batch(np.arange(start, start + FRAMES)).asnumpy()
    reference = reader.get_batch(np.arange(other, other + FRAMES)).asnumpy()
    mel = mel_spectrogram(read_waveform(clip.path))
    truth, reference = (
        (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        for frames in (truth, reference)
    )
    mask = torch.from_numpy(load_mask("mask", SIZE).astype(np.float64))
    return {
        "gt_pixel_values": truth,
        "masked_pixel_values": truth * mask,
        "ref_pixel_values": reference,
        "masks": mask.expand(FRAMES, 1, SIZE, SIZE).clone(),
        "mel": mel_window(mel, start),
    }


def make_clips(folder: Path) -> list[Clip]:
    """Synthetic clips as written by `prepare.py`; latents and audio states are random numbers."""
    latents_dir = folder / LATENTS_FOLDER / "vae"
    for each in (folder / "clips", folder / "features", latents_dir):
        each.mkdir(parents=True)
    clips = []
    for index in range(NUM_CLIPS):
        drawn = render_clip(folder / f"drawn{index}", seed=900 + index, seconds=SECONDS, size=SIZE)
        waveform = read_waveform(drawn)
        sound = folder / "sound.wav"
        write_wav(sound, waveform, 16_000)
        clip = Clip(
            path=folder / "clips" / f"{index}.mp4",
            features_path=folder / "features" / f"{index}.safetensors",
            latents_path=None, num_frames=SECONDS * FPS, source=str(drawn), start_frame=0,
            resolution=SIZE, fps=float(FPS),
        )  # fmt: skip
        with VideoWriter(
            clip.path,
            fps=FPS,
            width=SIZE,
            height=SIZE,
            crf=8,
            audio=sound,
            keyframe_interval=KEYFRAME_INTERVAL,
            tune=TUNE,
            colour=COLOUR,
        ) as writer:
            for frame in read_frames(drawn):
                writer.write(frame)
        states = torch.randn(SECONDS * 50, 5, 384).half()
        save_file({"audio": states, "mel": mel_spectrogram(waveform)}, clip.features_path)
        stored = torch.randn(2, clip.num_frames, 4, SIZE // 8, SIZE // 8).half()
        save_file(
            {"latents": stored[0].clone(), "masked_latents": stored[1].clone()},
            latents_dir / f"{index}.safetensors", metadata={"mask": "mask", "vae": "vae"},
        )  # fmt: skip
        clips.append(clip)
    write_manifest(clips, folder / "manifest.jsonl")
    return clips


if __name__ == "__main__":
    main()
