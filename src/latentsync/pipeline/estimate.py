"""What a job would cost on this machine, from a measured pass of the network."""

import time
from dataclasses import replace

import numpy as np
import torch

from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.draw import draw_windows
from latentsync.pipeline.engine import Drawing, Job
from latentsync.pipeline.plan import Plan
from latentsync.pipeline.windows import Window
from latentsync.report import peak_memory_mib

FRAMES_IN_HAND = 8  # decoded frames of both streams and of the encoder, about


def with_estimate(job: Job, model: LipSyncModel, drawing: Drawing) -> Plan:
    """The job's plan with its expected seconds and memory: one window is drawn with one step and
    with two, which tells the share of the steps; decoding and encoding are not in the seconds."""
    if not job.windows:
        return job.plan
    form = model.format
    size = form.resolution
    slots = np.arange(form.num_frames)
    window = Window(0, 0, len(slots), np.ones(len(slots), dtype=np.float32), slots)
    faces = np.zeros((len(slots), size, size, 3), dtype=np.uint8)
    tokens = job.voices[None].tokens

    def seconds(num_steps: int) -> float:
        sampler = replace(
            drawing.sampler, num_steps=num_steps, guidance_scale=1.0, deepcache_interval=1
        )
        started = time.perf_counter()
        list(
            draw_windows(
                [window],
                lambda _, wanted: faces[wanted],
                lambda _, wanted: tokens.tokens(torch.from_numpy(wanted)),
                model=model,
                sampler=sampler,
                seed=drawing.seed,
            )
        )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(1)  # the first run of a network is slower
    one, two = seconds(1), seconds(2)
    step = max(two - one, 0.0)
    sampler = drawing.sampler
    passes = sum(2 if sampler.is_guided(place) else 1 for place in range(sampler.num_steps))
    per_window = (one - step) + passes * step
    frame_mib = job.source.width * job.source.height * 3 / 2**20
    expected = {
        "windows": float(len(job.windows)),
        "network_seconds": round(len(job.windows) * per_window, 1),
        "memory_mib": round(peak_memory_mib() + FRAMES_IN_HAND * frame_mib),
    }
    return replace(job.plan, expected=expected)
