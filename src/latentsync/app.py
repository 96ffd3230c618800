"""The web page: `python -m latentsync.app [--host 127.0.0.1] [--port 7860] [--ckpt FOLDER]`.

One model stays loaded, one job runs at a time, and every job has a folder of its own. Only this
machine reaches the page unless --host says otherwise, and nothing is sent or fetched anywhere.
Requests must name the page as it is known here: another site whose name was pointed to this
address is not answered (--allowed-host adds a name, as that of a proxy).
"""

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from html import escape
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Lock
from urllib.parse import urlsplit
from uuid import uuid4

import torch
import yaml

from latentsync import demo_model_dir, shipped_dir
from latentsync.diffusion.sampler import Sampler
from latentsync.extras import needed_parts
from latentsync.faces.detectors.base import FaceDetector
from latentsync.faces.detectors.facemesh import MeshDetector
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.precision import make_ready
from latentsync.pipeline import Cache, Encoding, lipsync, page_path, report_path
from latentsync.pipeline.reporting.report import Report, custom_preset, plain
from latentsync.runtime import Progress, forget_peak_memory, return_large_blocks
from latentsync.weights import model_folder

with needed_parts():
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.requests import HTTPConnection
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

# As in conf/preset/, from careful to quick.
PRESETS = ("official", "best", "balanced", "fast", "draft")
FIRST_PRESET = "balanced"
FIRST_SEED = 1247
TELL_SECONDS = 0.2  # between two words about progress
STAGES = {"faces": "Looking for faces", "frames": "Drawing mouths"}
KEEP_UPLOADS_SECONDS = 24 * 3600


class Cancelled(Exception):
    """The job was given up by who asked for it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What a file of conf/preset/ says."""

    name: str
    sampler: Sampler
    overlap: int
    measure: bool
    encoding: Encoding


def read_presets() -> dict[str, Preset]:
    """The presets of `infer.py preset=`, from the same files."""
    conf = shipped_dir("conf", "conf")

    def read(name: str) -> dict:
        return yaml.safe_load((conf / f"{name}.yaml").read_text(encoding="utf-8"))

    first = read("infer")
    presets = {}
    for name in PRESETS:
        own = read(f"preset/{name}")
        group = next(line for line in own["defaults"] if "override /sampler" in line)
        solver = read(f"sampler/{group['override /sampler']}")
        solver.pop("_target_")
        encoding = {**first["encoding"], **own.get("encoding", {})}
        presets[name] = Preset(
            name,
            Sampler(**solver),
            overlap=own.get("overlap", first["overlap"]),
            measure=own.get("measure", first["measure"]),
            encoding=Encoding(crf=own.get("crf", first["crf"]), **encoding),
        )
    return presets


@dataclass(frozen=True, slots=True)
class Engine:
    """What stays loaded between jobs, and where their folders are made."""

    model: LipSyncModel
    detector: FaceDetector
    jobs_dir: Path
    cache: Cache | None = None
    turn: Lock = field(default_factory=Lock)

    def speak(
        self,
        video: str | None,
        audio: str | None,
        preset: Preset,
        *,
        seed: int,
        progress: Progress = True,
    ) -> tuple[Path, Report]:
        """The finished video and its report; ValueError or OSError if the input is unusable.

        The job has a folder of its own, which goes if nothing comes of it.
        """
        if not video or not audio:
            raise ValueError("a video and a voice are needed")
        with self.turn, self._folder() as folder:
            out = folder / "out.mp4"
            forget_peak_memory()
            report = lipsync(
                Path(video),
                Path(audio),
                out,
                model=self.model,
                detector=self.detector,
                sampler=preset.sampler,
                seed=seed,
                encoding=preset.encoding,
                overlap=preset.overlap,
                measure=preset.measure,
                cache=self.cache,
                preset=preset.name,
                progress=progress,
            )
            return out, report

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = self.jobs_dir / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder)
            raise


class Desk:
    """Takes jobs from the page and gives up the one a browser wants cancelled."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.presets = read_presets()
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
        """One job, from the fields of the page to what it shows."""
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
        return str(out), _said(report), _framed(page), files, plain(asdict(report))

    def cancel(self, request: gr.Request) -> str:
        """Give up the job of this browser; it ends with the frame or chunk in work."""
        stop = self.stops.get(str(request.session_hash))
        if stop is None:
            return "Nothing is running."
        stop.set()
        return "Cancelled."

    def solver(self, preset: str) -> tuple[int, float]:
        """What the sliders show for a preset."""
        sampler = self.presets[preset].sampler
        return sampler.num_steps, sampler.guidance_scale


def teller(progress: gr.Progress, stop: Event) -> Callable[[str, int, int], None]:
    """Tells the page how far the job is, now and then; raises once the job shall stop."""
    last = 0.0

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if now - last >= TELL_SECONDS or done == total:
            last = now
            progress((done, total), desc=STAGES.get(stage, stage), unit="frames")

    return on_progress


def _said(report: Report) -> str:
    share = f"{report.num_frames_with_face} of {report.num_frames} frames lip-synced"
    return f"{share} in {report.total_seconds:.1f} s, with the preset {report.preset}."


def _framed(page: str) -> str:
    """A page within the page, whose styles do not meet."""
    return (
        f'<iframe srcdoc="{escape(page)}" title="Report" sandbox '
        'style="width: 100%; height: 900px; border: 0"></iframe>'
    )


def build_page(engine: Engine) -> gr.Blocks:
    """The page on an engine; not yet served."""
    desk = Desk(engine)
    first = desk.presets[FIRST_PRESET].sampler
    with gr.Blocks(
        title="latentsync",
        analytics_enabled=False,
        delete_cache=(3600, KEEP_UPLOADS_SECONDS),
    ) as page:
        gr.Markdown("# latentsync\nA face in a video speaks another voice.")
        with gr.Row(equal_height=True):
            video = gr.Video(label="Video with a face", sources=["upload"], elem_id="source")
            result = gr.Video(label="Result", interactive=False, elem_id="result")
        with gr.Row():
            audio = gr.Audio(label="Voice", sources=["upload"], type="filepath", elem_id="voice")
            with gr.Column():
                preset = gr.Radio(list(PRESETS), value=FIRST_PRESET, label="Preset")
                with gr.Accordion("By hand", open=False):
                    steps = gr.Slider(1, 50, value=first.num_steps, step=1, label="Steps")
                    guidance = gr.Slider(
                        0, 4, value=first.guidance_scale, step=0.1, label="Guidance"
                    )
                    seed = gr.Number(FIRST_SEED, precision=0, label="Seed")
                with gr.Row():
                    go = gr.Button("Lip-sync", variant="primary", elem_id="go")
                    cancel = gr.Button("Cancel", elem_id="cancel")
        message = gr.Markdown(elem_id="said")
        files = gr.Files(label="Files", interactive=False)
        report = gr.HTML(elem_id="report")
        with gr.Accordion("Numbers", open=False):
            numbers = gr.JSON(label="report.json")
        preset.input(desk.solver, preset, [steps, guidance], queue=False)
        asked = [video, audio, preset, steps, guidance, seed]
        job = go.click(
            desk.start, asked, [result, message, report, files, numbers], concurrency_limit=1
        )
        # `cancels` lets go of a job that waits for its turn; one at work stops by itself.
        cancel.click(desk.cancel, None, message, cancels=[job], queue=False)
    return page.queue(default_concurrency_limit=1)


def serve(
    engine: Engine,
    *,
    host: str,
    port: int | None = None,
    wait: bool = True,
    allowed_hosts: Iterable[str] = (),
) -> gr.Blocks:
    """Serve the page; with `wait` until it is interrupted. Its address is `local_url`.

    `allowed_hosts`: names of this page besides localhost and `host`.
    """
    page = build_page(engine)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        # Not as the environment says: a server of Node beside ours has passed tokens on.
        ssr_mode=False,
        quiet=not wait,
        prevent_thread_lock=not wait,
        allowed_paths=[str(engine.jobs_dir)],
        app_kwargs={"middleware": [Middleware(KnownHosts, host=host, more=tuple(allowed_hosts))]},
    )
    return page


class KnownHosts:
    """Answers requests that call the page by one of its names, and no others.

    A page of another site can have its own name resolved to this machine, and a browser would let
    it read what is answered under that name (DNS rebinding). An address is no such name: a page
    that listens on all addresses takes each of them.
    """

    def __init__(self, app: ASGIApp, *, host: str, more: Iterable[str] = ()) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, more)}
        self.any_address = host in ("0.0.0.0", "::")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            asked = HTTPConnection(scope).headers.get("host", "")
            if not self.knows(asked):
                message = f"{asked!r} is no name of this page; --allowed-host adds one\n"
                await PlainTextResponse(message, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def knows(self, asked: str) -> bool:
        """Whether a Host header, with or without a port, names this page."""
        try:
            parts = urlsplit(f"//{asked}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != asked or "@" in asked:
            return False
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def main() -> None:
    """Load the model once and serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m latentsync.app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME",
        help="another name under which the page may be asked for, as that of a proxy",
    )  # fmt: skip
    parser.add_argument(
        "--ckpt", default=str(demo_model_dir()), help="model folder, .ckpt, official .pt, hf:..."
    )
    parser.add_argument("--jobs", type=Path, default=Path("experiments/app"), help="where jobs go")
    asked = parser.parse_args()
    return_large_blocks()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model = LipSyncModel.from_pretrained(model_folder(asked.ckpt))
        detector = MeshDetector()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    make_ready(model, device="cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(model, detector, asked.jobs.resolve(), Cache.of_user())
    serve(engine, host=asked.host, port=asked.port, allowed_hosts=asked.allowed_host)


if __name__ == "__main__":
    main()
