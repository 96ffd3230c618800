"""`evaluate.py benchmark=...`: a method on every pair of a list, and then its results."""

import logging
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from latentsync.cli.choices import choose_device, choose_dtype
from latentsync.cli.names import build
from latentsync.evaluation.methods import CallMethod, CommandMethod, Method, load_function
from latentsync.evaluation.pair_list import LIST_NAME, Task, read_list, write_list
from latentsync.evaluation.pairs import Failed, Pair
from latentsync.evaluation.prepared_list import prepared_list
from latentsync.evaluation.run_method import Result, run_method
from latentsync.evaluation.synthetic_list import synthetic_list
from latentsync.files import visible_files
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import lipsync
from latentsync.weights import model_folder

BENCHMARKS = ("drawn", "set", "list")
SYNCNET = "syncnet"
MODEL = "model"
FPS = 25

log = logging.getLogger(__name__)


def benchmark_pairs(config: DictConfig, out: Path) -> Iterator[Pair | Failed]:
    """Each pair of the benchmark as soon as the method has made its result."""
    tasks, failed = tasks_of(config, out)
    yield from failed
    if config.pred is not None:
        yield from (of_folder(task, Path(config.pred)) for task in tasks)
        return
    for result in run_method(build_method(config), tasks, out):
        yield as_pair(result)


def tasks_of(config: DictConfig, out: Path) -> tuple[list[Task], list[Failed]]:
    """The pairs of the list, which is written to `out`, and what could not become one."""
    if config.benchmark not in BENCHMARKS:
        known = ", ".join((*BENCHMARKS, SYNCNET))
        raise ValueError(f"benchmark={config.benchmark} must be one of {known}")
    if config.benchmark == "drawn":
        tasks = synthetic_list(
            Path(config.paths.data) / "drawn" / "benchmark",
            setting=config.setting,
            limit=config.limit,
            seconds=config.max_frames / FPS,
            num_workers=config.world.num_workers,
        )
        write_list(out / LIST_NAME, tasks)
        return tasks, []
    if config.data.path is None:
        what = {"set": "a folder of prepare.py", "list": "a list of pairs, a CSV"}
        raise ValueError(f"benchmark={config.benchmark} needs data=: {what[config.benchmark]}")
    if config.benchmark == "list":
        return read_list(Path(config.data.path))[: config.limit], []
    tasks, failed = prepared_list(
        Path(config.data.path),
        out / "clips",
        setting=config.setting,
        limit=config.limit,
        seconds=config.max_frames / FPS,
    )
    write_list(out / LIST_NAME, tasks)
    return tasks, failed


def build_method(config: DictConfig) -> Method:
    """What method= names."""
    if isinstance(config.method, ListConfig):
        folder = None if config.method_folder is None else Path(config.method_folder)
        return CommandMethod(tuple(map(str, config.method)), config.timeout, folder)
    return model_method(config) if config.method == MODEL else load_function(str(config.method))


def model_method(config: DictConfig) -> CallMethod:
    """The pipeline with the model of ckpt=, as infer.py runs it."""
    model = LipSyncModel.from_pretrained(model_folder(config.ckpt))
    make_ready(model, device=choose_device(config.device), dtype=choose_dtype(config.dtype))
    detector, sampler = build(config.faces), build(config.sampler)

    def speak(video: Path, audio: Path, out: Path) -> None:
        lipsync(
            video, audio, out, model=model, detector=detector, sampler=sampler, seed=config.seed
        )

    steps = f"{config.sampler.scheduler} {config.sampler.num_steps}"
    return CallMethod(f"model {config.ckpt}, {steps}, seed {config.seed}", speak)


def as_pair(result: Result) -> Pair | Failed:
    """A result and its reference, or why there is none."""
    if result.path is None:
        assert result.failed is not None
        return Failed(f"{result.task.name}.mp4", result.failed)
    return pair_of(result.task, result.path)


def of_folder(task: Task, folder: Path) -> Pair | Failed:
    """The result of a pair in a folder of results, whatever its suffix."""
    changed = task.why_changed()
    if changed is not None:
        return Failed(f"{task.name}.mp4", changed)
    named = [path for path in visible_files(folder)
             if path.stem == task.name and path.parent == folder]  # fmt: skip
    if len(named) != 1:
        found = "no file" if not named else ", ".join(path.name for path in named)
        return Failed(f"{task.name}.mp4", f"pred={folder} has {found} of this name")
    return pair_of(task, named[0])


def pair_of(task: Task, path: Path) -> Pair:
    return Pair(
        path,
        task.video,
        setting=task.setting,
        speaker=task.speaker,
        condition=task.condition,
        voice=task.audio,
    )
