"""Every metric of conf/metrics: merged parts, a reset and two processes give the figures of one."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from latentsync.evaluation.aggregate import needs_of
from latentsync.metrics.base import Sample
from metrics.listed import LISTED, metric_of
from metrics.networks import files_in


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return files_in(tmp_path_factory.mktemp("networks"))


def tracks(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def faces(generator: torch.Generator, num_frames: int) -> Tensor:
    return tracks(generator, 1, num_frames, 3, 32, 32) * 2 - 1


def painted(generator: torch.Generator, num_frames: int) -> Tensor:
    mask = torch.zeros(1, num_frames, 1, 32, 32)
    mask[..., 14:30, 6:26] = 1
    return mask


# Inputs of one clip, as many frames as are asked for.
GIVEN: dict[str, Callable[[torch.Generator, int], Tensor]] = {
    "pixels": faces,
    "original": faces,
    "truth": faces,
    "painted": painted,
    "kept": lambda generator, frames: 1 - painted(generator, frames),
    "reading": lambda generator, frames: tracks(generator, frames, 4),
    "driving": lambda generator, frames: tracks(generator, frames, 4),
    "own": lambda generator, frames: tracks(generator, frames, 4),
    "silent": lambda generator, frames: tracks(generator, frames) < 0.5,
    "landmarks": lambda generator, frames: tracks(generator, frames, 2),
    "driving_landmarks": lambda generator, frames: tracks(generator, frames, 2),
    "own_landmarks": lambda generator, frames: tracks(generator, frames, 2),
    "other_voice_landmarks": lambda generator, frames: tracks(generator, frames, 2),
    "lips": lambda generator, frames: tracks(generator, frames, 40, 2),
    "driving_lips": lambda generator, frames: tracks(generator, frames, 40, 2),
    "lse_curves": lambda generator, frames: tracks(generator, 2, 31) * 9,
    "identity": tracks,
    "other_identity": tracks,
    "speaker_scores": tracks,
    "speech": lambda generator, frames: tracks(generator, 640 * frames) - 0.5,
    "sync_cosines": lambda generator, frames: tracks(generator, frames, 31),
}


def clips() -> list[Sample]:
    """Three clips of other lengths, with every input there is."""
    generator = torch.Generator().manual_seed(0)
    return [
        {name: make(generator, frames) for name, make in GIVEN.items()} for frames in (20, 26, 33)
    ]


def measured(metric: object, samples: list[Sample]) -> dict[str, float]:
    for sample in samples:
        metric.update(**{need: sample[need] for need in needs_of(metric)})
    return metric.compute()


def equal(one: dict[str, float], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value == pytest.approx(other[key], rel=1e-9, nan_ok=True), key


@pytest.mark.parametrize("name", LISTED)
def test_merged_and_reset_is_as_if_measured_at_once(name: str, files: dict[str, str]) -> None:
    samples = clips()
    whole = measured(metric_of(name, files), samples)
    assert any(math.isfinite(value) for value in whole.values())
    first, second = metric_of(name, files), metric_of(name, files)
    measured(first, samples[:1])
    measured(second, samples[1:])
    second.merge_state(first)
    equal(second.compute(), whole)
    first.reset()
    equal(measured(first, samples), whole)


@pytest.mark.parametrize("name", LISTED)
def test_a_call_gives_the_figures_of_its_clip_and_counts_it(
    name: str, files: dict[str, str]
) -> None:
    samples = clips()
    metric = metric_of(name, files)
    for sample in samples:
        alone = metric(**{need: sample[need] for need in needs_of(metric)})
        equal(alone, measured(metric_of(name, files), [sample]))
    equal(metric.compute(), measured(metric_of(name, files), samples))


def half(rank: int, folder: str, files: dict[str, str]) -> None:
    """Of three clips two are this process's, or one; then all of them, or none."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    init = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    samples = clips()
    results = {}
    for name in LISTED:
        parts = ([samples[1], samples[2]], [samples[0]])[rank]
        results[name] = measured(metric_of(name, files), parts)
        results[f"{name} alone"] = measured(metric_of(name, files), (samples, [])[rank])
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path, files: dict[str, str]) -> None:
    multiprocessing.spawn(half, args=(str(tmp_path), files), nprocs=2)
    samples = clips()
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in LISTED:
            whole = measured(metric_of(name, files), samples)
            equal(results[name], whole)
            equal(results[f"{name} alone"], whole)
