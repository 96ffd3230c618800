"""Jobs requested by the page: start, show progress, cancel, show results."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from html import escape
from threading import Event

from latentsync.app.engine import Engine
from latentsync.extras import needed_parts
from latentsync.pipeline import page_path, report_path
from latentsync.pipeline.reporting.report import Report, custom_preset, plain

with needed_parts():
    import gradio as gr

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2  # between two progress updates
STAGES = {"faces": "Looking for faces", "hands": "Looking for hands", "frames": "Drawing mouths"}


class Cancelled(Exception):
    """The user has cancelled the job."""


class Desk:
    """Runs jobs for the page and cancels them at the request of their browser."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.presets = engine.presets
        self.stops: dict[str, Event] = {}

    def start(
        self,
        video: str | None,
        audio: str | None,
        preset: str,
        steps: int,
        guidance: float,
        seed: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio injects it
    ) -> tuple[str, str, str, list[str], object]:
        """Run one job, from the fields of the page to the values of its outputs."""
        session = str(request.session_hash)
        stop = self.stops[session] = Event()
        try:
            chosen = self.presets[preset]
            sampler = replace(chosen.sampler, num_steps=int(steps), guidance_scale=guidance)
            name = custom_preset(preset, asdict(chosen.sampler), asdict(sampler))
            out, report = self.engine.speak(
                video,
                audio,
                replace(chosen, name=name, sampler=sampler),
                seed=int(seed),
                progress=teller(progress, stop),
            )
        except Cancelled as error:
            raise gr.Error("cancelled", duration=5) from error
        except (ValueError, OSError) as error:
            log.warning("a job was refused: %s", error)
            raise gr.Error(str(error), duration=None) from error
        finally:
            if self.stops.get(session) is stop:
                del self.stops[session]
        page = page_path(out).read_text(encoding="utf-8")
        files = [str(path) for path in (out, page_path(out), report_path(out))]
        return str(out), _summary(report), _framed(page), files, plain(asdict(report))

    def cancel(self, request: gr.Request) -> str:
        """Cancel the job of this browser; it stops after the current frame or chunk."""
        stop = self.stops.get(str(request.session_hash))
        if stop is None:
            return "Nothing is running."
        stop.set()
        return "Cancelled."

    def solver(self, preset: str) -> tuple[int, float]:
        """Values of the sliders for a preset."""
        sampler = self.presets[preset].sampler
        return sampler.num_steps, sampler.guidance_scale


def teller(progress: gr.Progress, stop: Event) -> Callable[[str, int, int], None]:
    """Callback that reports progress to the page, rate-limited; raises Cancelled once `stop` is
    set."""
    last = 0.0

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS or done == total:
            last = now
            progress((done, total), desc=STAGES.get(stage, stage), unit="frames")

    return on_progress


def _summary(report: Report) -> str:
    share = f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"
    return f"{share} in {report.total_seconds:.1f} s, with the preset {report.preset}."


def _framed(page: str) -> str:
    """A page in an iframe, so that styles do not interfere."""
    return (
        f'<iframe srcdoc="{escape(page)}" title="Report" sandbox '
        'style="width: 100%; height: 900px; border: 0"></iframe>'
    )
