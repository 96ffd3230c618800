"""The web page: `python -m latentsync.app [--host 127.0.0.1] [--port 7860] [--ckpt FOLDER]`.

One model stays loaded, one job runs at a time, and every job has a folder of its own. Only this
machine reaches the page unless --host says otherwise, and nothing is sent anywhere.
"""

import argparse
import logging
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import gradio as gr
import torch

from latentsync import demo_model_dir
from latentsync.diffusion import Sampler
from latentsync.faces.detect import FaceDetector
from latentsync.faces.mesh import MeshDetector
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import lipsync

log = logging.getLogger(__name__)

# What conf/sampler/ calls them, and the values of its files.
PRESETS = {
    "dpmpp": Sampler(scheduler="dpmpp", num_steps=10, guidance_scale=1.5),
    "ddim": Sampler(scheduler="ddim", num_steps=20, guidance_scale=1.5),
}
FIRST_PRESET = "dpmpp"
FIRST_SEED = 1247


@dataclass(frozen=True, slots=True)
class Engine:
    """What stays loaded between jobs, and where their folders are made."""

    model: LipSyncModel
    detector: FaceDetector
    jobs_dir: Path

    def speak(
        self,
        video: str | None,
        audio: str | None,
        sampler: Sampler,
        *,
        seed: int,
    ) -> tuple[Path, dict[str, object]]:
        """The finished video and its report; ValueError or OSError if the input is unusable."""
        if not video or not audio:
            raise ValueError("a video and a voice are needed")
        job_dir = self.jobs_dir / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{uuid4().hex[:8]}"
        job_dir.mkdir(parents=True)
        out = job_dir / "out.mp4"
        report = lipsync(
            Path(video),
            Path(audio),
            out,
            model=self.model,
            detector=self.detector,
            sampler=sampler,
            seed=seed,
            progress=True,
        )
        return out, asdict(report)


def build_page(engine: Engine) -> gr.Blocks:
    """The page on an engine; not yet served."""

    def start(
        video: str | None,
        audio: str | None,
        preset: str,
        steps: int,
        guidance: float,
        seed: int,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - how gradio injects it
    ) -> tuple[str, dict[str, object]]:
        try:
            scheduler = PRESETS[preset].scheduler
            sampler = Sampler(scheduler, num_steps=steps, guidance_scale=guidance)
            out, report = engine.speak(video, audio, sampler, seed=seed)
        except (ValueError, OSError) as error:
            log.warning("a job was refused: %s", error)
            raise gr.Error(str(error)) from error
        return str(out), report

    first = PRESETS[FIRST_PRESET]
    with gr.Blocks(title="latentsync", analytics_enabled=False) as page:
        gr.Markdown("# latentsync\nA face in a video speaks another voice.")
        with gr.Row():
            video = gr.Video(label="Video with a face", sources=["upload"])
            audio = gr.Audio(label="Voice", sources=["upload"], type="filepath")
            result = gr.Video(label="Result", interactive=False)
        with gr.Row():
            preset = gr.Dropdown(list(PRESETS), value=FIRST_PRESET, label="Sampler")
            steps = gr.Slider(1, 50, value=first.num_steps, step=1, label="Steps")
            guidance = gr.Slider(0, 4, value=first.guidance_scale, step=0.1, label="Guidance")
            seed = gr.Number(FIRST_SEED, precision=0, label="Seed")
        with gr.Row():
            go = gr.Button("Lip-sync", variant="primary")
            cancel = gr.Button("Cancel")
        report = gr.JSON(label="Report")
        preset.input(_preset_values, preset, [steps, guidance])
        job = go.click(start, [video, audio, preset, steps, guidance, seed], [result, report])
        cancel.click(None, cancels=[job])
    return page.queue(default_concurrency_limit=1)


def _preset_values(preset: str) -> tuple[int, float]:
    sampler = PRESETS[preset]
    return sampler.num_steps, sampler.guidance_scale


def main() -> None:
    """Load the model once and serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m latentsync.app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--ckpt", type=Path, default=demo_model_dir(), help="a model folder")
    parser.add_argument("--jobs", type=Path, default=Path("experiments/app"), help="where jobs go")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model = LipSyncModel.from_pretrained(asked.ckpt)
        detector = MeshDetector()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(model, detector, asked.jobs.resolve())
    build_page(engine).launch(
        server_name=asked.host,
        server_port=asked.port,
        share=False,
        allowed_paths=[str(engine.jobs_dir)],
    )


if __name__ == "__main__":
    main()
