"""infer.py in processes forked from one that has imported everything."""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

SAID = "said.txt"
WORDS = (
    "video=face.mp4",
    "audio=voice.wav",
    "ckpt=model",
    "faces=fixed",
    "faces.points=[[48,48],[80,48],[64,64]]",
    "faces.min_size=0",
    "sampler=dpmpp",
    "sampler.num_steps=2",
    "measure=false",
    "device=cpu",
)


def start_infer(folder: Path, *words: str) -> ForkServerProcess:
    """Run `infer.py` in a folder; its output is appended to `said.txt` next to the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["latentsync.cli.entry", "latentsync.cli.infer"])
    process = context.Process(target=_infer, args=(folder, [*WORDS, *words]))
    process.start()
    return process


def _infer(folder: Path, words: list[str]) -> None:
    os.chdir(folder)
    said = os.open(folder.parent / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["infer.py", *words]
    from latentsync.cli.entry import infer

    infer()
