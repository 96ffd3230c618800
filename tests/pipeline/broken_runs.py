"""Runs broken inputs one by one, each in a child process with limited time and memory.

`python broken_runs.py cases.json results.json`, where a case is {name, video, audio, folder}.
Children are forked from a process that has loaded everything, so that a run only costs its own
work.
"""

import json
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

import cv2
import torch

from latentsync.diffusion.sampler import Sampler
from latentsync.pipeline import Choice, lipsync
from pipeline.inputs import POINTS, SeesLight, build_tiny_model

SECONDS = 60
GIGABYTES = 4
PROMPT_SECONDS = 0.02


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cases = json.loads(Path(sys.argv[1]).read_text())
    model, detector = build_tiny_model(), SeesLight(POINTS)
    results = {}
    for case in cases:
        results[case["name"]] = watched(case, model, detector)
        Path(sys.argv[2]).write_text(json.dumps(results, indent=1))


def watched(case: dict, model: object, detector: object) -> dict:
    """The result of a case: done, rejected with a line, or how else it ended."""
    reader, writer = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        limit = used_bytes() + GIGABYTES * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        told = attempt(case, model, detector)
        told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        os.write(writer, json.dumps(told).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    status = wait(pid, begun + SECONDS)
    with os.fdopen(reader, "rb") as pipe:
        told = json.loads(pipe.read() or "null") or {"end": f"died, status {status}"}
    told["seconds"] = round(time.monotonic() - begun, 2)
    told["left"] = sorted(path.name for path in Path(case["folder"]).iterdir())
    return told


def wait(pid: int, deadline: float) -> str:
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return str(status)
        time.sleep(PROMPT_SECONDS)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"more than {SECONDS} s"


def attempt(case: dict, model: object, detector: object) -> dict:
    try:
        report = lipsync(
            Path(case["video"]), Path(case["audio"]), Path(case["folder"]) / "out.mp4",
            model=model, detector=detector,
            sampler=Sampler("ddim", num_steps=1, guidance_scale=1.0),
            choice=Choice(min_size=0, min_seconds=0),
        )  # fmt: skip
    except (ValueError, OSError) as error:
        return {"end": "refused", "line": str(error)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return {
            "end": f"raised {type(error).__name__}",
            "line": str(error)[:500],
            "at": where(error),
        }
    return {"end": "done", "frames": report.num_frames, "damage": report.damage}


def where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def used_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
