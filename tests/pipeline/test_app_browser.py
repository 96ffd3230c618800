"""The page in a real browser, headless Chromium."""

import gc
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.inputs import presets_of_the_command

pytest.importorskip("gradio", reason="the extra `app` is not installed")
browsers = pytest.importorskip(
    "playwright.sync_api", reason="pip install playwright; its own browsers are not needed"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MILLISECONDS = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def url(tmp_path, tiny_model, detector):
    from latentsync.app import Engine, serve

    presets = presets_of_the_command()
    engine = Engine(tiny_model, detector, tmp_path / "jobs", presets)
    page = serve(engine, host="127.0.0.1", wait=False)
    yield page.local_url
    page.close()
    gc.collect()


@pytest.fixture
def page(url: str):
    """The open page; requests to other machines are collected in `page.strangers`."""
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(MILLISECONDS)
        page.strangers = []
        page.on("request", lambda request: note_stranger(page.strangers, request.url))
        page.goto(url)
        yield page
        browser.close()


def note_stranger(strangers: list[str], address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("data", "blob", "about") and parts.hostname != "127.0.0.1":
        strangers.append(address)


def give(page, video: Path, voice: Path) -> None:
    page.set_input_files("#source input[type=file]", str(video))
    page.locator("#source video").wait_for()
    page.set_input_files("#voice input[type=file]", str(voice))
    page.locator("#voice input[type=file]").wait_for(state="detached")


def test_from_upload_to_result(page, url: str, video: Path, voice: Path, tmp_path: Path):
    give(page, video, voice)
    page.get_by_label("draft").check()
    page.click("#go")
    page.locator("#said").get_by_text("frames lip-synced").wait_for()

    # The result plays, next to the source.
    result, source = page.locator("#result video"), page.locator("#source video")
    page.wait_for_function("document.querySelector('#result video').readyState >= 2")
    assert result.evaluate("video => video.duration") == pytest.approx(1.6, abs=0.05)
    assert result.evaluate("video => [video.videoWidth, video.videoHeight]") == [128, 112]
    left, right = source.bounding_box(), result.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] < right["y"] + right["height"] and right["y"] < left["y"] + left["height"]

    # The report is shown, with its pictures.
    report = page.frame_locator("#report iframe")
    report.get_by_text("Source above, result below").wait_for()
    assert report.locator("img").evaluate("image => image.naturalWidth") > 1000
    assert report.locator("svg path.voice").count() == 1
    (folder,) = (tmp_path / "jobs").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "out.mp4",
        "out.report.html",
        "out.report.json",
        "out.report.png",
    }
    assert page.strangers == []


def test_a_bad_file_is_said_and_the_page_goes_on(page, video: Path, voice: Path, tmp_path: Path):
    text = tmp_path / "voice.wav"
    text.write_text("not a sound")
    give(page, video, text)
    page.click("#go")
    page.get_by_text("voice.wav").last.wait_for()
    page.get_by_test_id("toast-body").wait_for()
    assert "voice.wav" in page.get_by_test_id("toast-body").inner_text()
    assert list((tmp_path / "jobs").iterdir()) == []


def test_cancel(page, video: Path, tmp_path: Path):
    from pipeline.inputs import write_voice

    give(page, video, write_voice(tmp_path / "long.wav", 120))
    page.click("#go")
    page.get_by_text("Drawing mouths").first.wait_for()
    page.click("#cancel")
    page.locator("#said").get_by_text("Cancelled.").wait_for()
    page.get_by_text("Drawing mouths").first.wait_for(state="detached")
    for _ in range(100):
        if not list((tmp_path / "jobs").iterdir()):
            break
        page.wait_for_timeout(100)
    assert list((tmp_path / "jobs").iterdir()) == []
