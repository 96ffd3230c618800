"""Trains and draws every variant of variants.yaml; goes on where it was stopped.

python experiments/ablation/run.py DATA RUNS [--lock FILE]

DATA holds train/, val/ and test/, prepared as `make train-demo` prepares them (128 pixels). RUNS
gets a folder for every run, and results.csv with a line for every drawing. Between two runs
`--lock` is let go, so that other heavy work of the machine gets its turn.
"""

import argparse
import csv
import fcntl
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import hydra
import torch
from measure import Bench
from omegaconf import DictConfig, OmegaConf

from latentsync.cli.command import VERSION_BASE, conf_dir, register_resolvers
from latentsync.cli.train import train
from latentsync.prepare.latents import encode_latents

HERE = Path(__file__).parent
log = logging.getLogger("ablation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--only", nargs="*", help="names of runs; all without")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    register_resolvers()
    plan = OmegaConf.load(HERE / "variants.yaml")
    queue = Queue(plan, options.data.resolve(), options.runs.resolve(), options.lock)
    queue.train_shared()
    for name in options.only or plan.runs:
        for seed in plan.seeds:
            queue.run(name, seed)
    queue.note_bounds()


class Queue:
    """The runs one after the other; what is there is not made again."""

    def __init__(self, plan: DictConfig, data: Path, runs: Path, lock: Path | None) -> None:
        self.plan, self.data, self.runs, self.lock = plan, data, runs, lock
        self.bench: Bench | None = None
        runs.mkdir(parents=True, exist_ok=True)

    def train_shared(self) -> None:
        """The VAE and the latents it makes."""
        plan = self.plan
        vae = self.train("vae", [*plan.vae, f"+vae={(HERE / plan.demo_vae).resolve()}"], seed=0)
        for split in ("train", "val"):
            with self.turn():
                encode_latents(self.data / split, vae, resolution=plan.resolution, dtype="bfloat16")

    def run(self, name: str, seed: int) -> None:
        """Train a variant with a seed, and draw with it as it asks."""
        variant = self.plan.runs[name]
        if variant.stage == "stage2":
            for evaluator, changes in self.plan.syncnets.items():
                self.train(evaluator, [*self.plan.syncnet_base, *changes], seed=0)
        model = self.train(f"{name}_{seed}", self.overrides(name), seed=seed)
        for how in variant.draw:
            row = {"run": name, "seed": seed, "guidance": how.guidance}
            row["reference"] = how.get("reference", "apart")
            if self.is_drawn(row):
                continue
            with self.turn():
                self.bench = self.bench or Bench(self.data / "test", self.plan.resolution)
                started = time.perf_counter()
                row |= self.bench.measure(model, how.guidance, row["reference"])
                row["seconds"] = round(time.perf_counter() - started, 1)
            self.note(row)

    def note_bounds(self) -> None:
        """bounds.json: what the best and the deafest possible model would get."""
        path = self.runs / "bounds.json"
        if path.is_file():
            return
        with self.turn():
            bench = self.bench or Bench(self.data / "test", self.plan.resolution)
            rows = bench.bounds(self.runs / f"base_{self.plan.seeds[0]}" / "model")
        path.write_text(json.dumps(rows, indent=2) + "\n")

    def overrides(self, name: str) -> list[str]:
        """What a variant overrides, on top of its stage."""
        variant = self.plan.runs[name]
        words = [*self.plan[f"{variant.stage}_base"], *variant.overrides]
        return [*words, f"vae={self.runs}/vae/model"] if variant.stage == "stage1" else words

    def compose(self, folder: Path, overrides: Sequence[str], seed: int) -> DictConfig:
        """The config that `train.py` would have with these overrides."""
        words = [
            word.replace("<runs>", str(self.runs)).replace("<seed>", str(seed))
            for word in overrides
        ]
        for split in ("train", "val"):
            words += [f"data.{split}_manifest={self.data}/{split}/manifest.jsonl"]
        words += [f"seed={seed}", f"paths.run_dir={folder}", "~callbacks.progress"]
        words += ["trainer.val_check_interval=${trainer.max_steps}"]
        with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            return hydra.compose("train", overrides=words)

    def train(self, name: str, overrides: Sequence[str], *, seed: int) -> Path:
        """Train by `train.py`'s own function unless the run's model is there; gives the model."""
        folder = self.runs / name
        if (folder / "seconds.txt").is_file():
            return folder / "model"
        config = self.compose(folder, overrides, seed)
        with self.turn():
            started = time.perf_counter()
            train(config)
            seconds = time.perf_counter() - started
        (folder / "seconds.txt").write_text(f"{seconds:.0f}\n")
        log.info("%s: trained in %.0f s", name, seconds)
        return folder / "model"

    def is_drawn(self, row: dict) -> bool:
        path = self.runs / "results.csv"
        if not path.is_file():
            return False
        with path.open(newline="") as lines:
            wanted = {name: str(value) for name, value in row.items()}
            return any(wanted.items() <= done.items() for done in csv.DictReader(lines))

    def note(self, row: dict) -> None:
        path = self.runs / "results.csv"
        first = not path.is_file()
        with path.open("a", newline="") as lines:
            writer = csv.DictWriter(lines, list(row))
            if first:
                writer.writeheader()
            writer.writerow(row)
        log.info("%s", row)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock, if there is one."""
        with self.lock.open("a") if self.lock else nullcontext() as file:
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
