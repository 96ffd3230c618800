"""The user interface: input fields, result and report of a job."""

from latentsync.app.engine import Engine
from latentsync.app.jobs import Desk
from latentsync.app.presets import FIRST_PRESET
from latentsync.extras import needed_parts

with needed_parts():
    import gradio as gr

FIRST_SEED = 1247
KEEP_UPLOADS_SECONDS = 24 * 3600


def build_page(engine: Engine) -> gr.Blocks:
    """The page for an engine, not yet served."""
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
                preset = gr.Radio(list(desk.presets), value=FIRST_PRESET, label="Preset")
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
        # `cancels` removes a job from the queue; a running job stops by itself.
        cancel.click(desk.cancel, None, message, cancels=[job], queue=False)
    return page.queue(default_concurrency_limit=1)
