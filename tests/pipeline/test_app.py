"""The page, asked over HTTP as a browser asks it."""

import gc
from pathlib import Path

import pytest

gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")
gradio_client = pytest.importorskip("gradio_client")

# Gradio leaves event loops to the garbage collector and uses what pandas deprecates.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def page(tiny_model, detector, tmp_path):
    from latentsync.app import Engine, build_page

    page = build_page(Engine(tiny_model, detector, tmp_path / "jobs"))
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        allowed_paths=[str(tmp_path / "jobs")],
    )
    yield gradio_client.Client(url, verbose=False, download_files=False)
    page.close()
    gc.collect()  # here, where its warnings are let through


def ask(page, video: Path, voice: Path):
    files = [gradio_client.handle_file(path) for path in (video, voice)]
    return page.predict(*files, "dpmpp", 2, 1.0, 7, api_name="/start")


def test_each_job_has_a_folder_and_a_report(page, video, voice):
    reports = [ask(page, video, voice)[1] for _ in range(2)]
    outs = {Path(report["out"]) for report in reports}
    assert len({out.parent for out in outs}) == 2
    assert all(out.is_file() for out in outs)
    assert [(report["num_frames"], report["seed"]) for report in reports] == [(34, 7), (34, 7)]


def test_what_is_wrong_is_said_on_the_page(page, voice, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"text\.mp4"):
        ask(page, text, voice)
