"""The page, accessed over HTTP like by a browser."""

import gc
import html
import http.client
import re
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from latentsync.cli.command import conf_dir
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import MeshDetector
from latentsync.pipeline.outputs import parts_folder
from pipeline.inputs import (
    build_tiny_model,
    picture,
    presets_of_the_command,
    write_video,
    write_voice,
)

gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")
gradio_client = pytest.importorskip("gradio_client")

# Gradio leaves event loops to the garbage collector, and uses deprecated functions of pandas.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def jobs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app") / "jobs"


@pytest.fixture(scope="module")
def url(jobs_dir: Path):
    from latentsync.app import Engine, serve
    from pipeline.inputs import POINTS, SeesLight

    engine = Engine(build_tiny_model(), SeesLight(POINTS), jobs_dir, presets_of_the_command())
    page = serve(engine, host="127.0.0.1", wait=False)
    yield page.local_url
    page.close()
    gc.collect()  # here, where its warnings are allowed


@pytest.fixture
def client(url: str):
    return gradio_client.Client(url, verbose=False, download_files=False)


def fields(video: Path, voice: Path) -> list:
    files = [gradio_client.handle_file(path) for path in (video, voice)]
    return [*files, "draft", 2, 1.0, 7]


def ask(client, video: Path, voice: Path) -> tuple:
    return client.predict(*fields(video, voice), api_name="/start")


def test_each_job_has_a_folder_and_a_report(client, video: Path, voice: Path):
    answers = [ask(client, video, voice) for _ in range(2)]
    numbers = [answer[4] for answer in answers]
    outs = {Path(told["out"]) for told in numbers}
    assert len({out.parent for out in outs}) == 2
    assert all(out.is_file() for out in outs)
    told = numbers[0]
    assert (told["seed"], told["sampler"]["num_steps"]) == (7, 2)
    assert told["preset"] == "custom (draft) with num_steps=2"
    _, said, framed, files, _ = answers[0]
    assert said.startswith(f"{told['num_frames_with_face']} of {told['num_frames']} frames")
    # The embedded page is the complete file next to the result.
    page = html.unescape(re.search('srcdoc="([^"]*)"', framed)[1])
    out = Path(told["out"])
    assert page == out.with_suffix(".report.html").read_text()
    assert {file["orig_name"] for file in files} == {
        "out.mp4",
        "out.report.html",
        "out.report.json",
    }


@pytest.mark.parametrize(("preset", "hidden"), [("draft", True), ("official", False)])
def test_what_hides_a_mouth_is_kept_except_by_the_official_preset(
    voice: Path, tmp_path: Path, preset: str, hidden: bool
):
    from latentsync.app import Engine
    from pipeline.inputs import POINTS, RightHalf, SeesLight

    frames = [picture(index).repeat(3, axis=0).repeat(3, axis=1) for index in range(40)]
    video = write_video(tmp_path / "near.mp4", frames, crf=20)
    presets = presets_of_the_command()
    seen = SeesLight(3 * np.array(POINTS))
    engine = Engine(build_tiny_model(), seen, tmp_path, presets, masker=RightHalf())
    chosen = replace(presets[preset], sampler=Sampler(num_steps=1), detector=seen)
    _, report = engine.speak(str(video), str(voice), chosen, seed=7, progress=False)
    assert report.num_frames_with_face > 20
    assert report.occlusion.get("frames", 0) == (RightHalf.END - RightHalf.FIRST) * hidden


def test_what_is_wrong_is_said_on_the_page_and_leaves_no_folder(
    client, voice: Path, tmp_path: Path, jobs_dir: Path
):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    before = list(jobs_dir.glob("*"))
    with pytest.raises(gradio_client.exceptions.AppError, match=r"text\.mp4"):
        ask(client, text, voice)
    assert list(jobs_dir.glob("*")) == before


def test_cancel_stops_the_work_of_this_browser_and_the_next_job_runs(
    client, video: Path, voice: Path, tmp_path: Path, jobs_dir: Path
):
    long = write_voice(tmp_path / "long.wav", 60)
    before = set(jobs_dir.glob("*"))
    job = client.submit(*fields(video, long), api_name="/start")
    folder = wait_for(lambda: next(iter(set(jobs_dir.glob("*")) - before), None))
    wait_for(parts_folder(folder / "out.mp4").is_dir)  # it is writing
    # Requests of other browsers do not cancel it.
    other = gradio_client.Client(client.src, verbose=False, download_files=False)
    assert other.predict(api_name="/cancel") == "Nothing is running."
    assert folder.is_dir()
    assert client.predict(api_name="/cancel") == "Cancelled."
    wait_for(lambda: not folder.exists())
    with pytest.raises(gradio_client.exceptions.AppError, match="cancelled"):
        job.result()
    assert client.predict(api_name="/cancel") == "Nothing is running."
    assert Path(ask(client, video, voice)[4]["out"]).is_file()


def wait_for(seen, seconds: float = 30):
    """Waits until `seen` returns something, and returns it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := seen():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_the_presets_are_those_of_the_command():
    presets = presets_of_the_command()
    files = {path.stem for path in (conf_dir() / "preset").glob("*.yaml")}
    assert set(presets) == files
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for name, preset in presets.items():
            config = compose("infer", overrides=[f"preset={name}"])
            assert preset.sampler == instantiate(config.sampler, _convert_="all")
            assert preset.name == config.preset
            assert (preset.overlap, preset.measure) == (config.overlap, config.measure)
            assert preset.encoding.preset == config.encoding.preset
            assert preset.encoding.crf == config.crf
    # Only the published pipeline has its own detector.
    assert {name for name, preset in presets.items() if preset.detector} == {"official"}
    assert isinstance(presets["official"].detector, MeshDetector)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example:{port}", 403),
        ("localhost.evil.example", 403),
        ("evil.example@localhost:{port}x", 403),
        ("192.168.7.7:{port}", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/upload")]
)
def test_only_names_of_this_page_are_answered(
    url: str, host: str, status: int, method: str, path: str
):
    """A site whose name resolves to this machine sends that name as the Host."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host.format(port=address.port))
    connection.endheaders()
    answered = connection.getresponse()
    body = answered.read()
    connection.close()
    if status == 403:
        assert (answered.status, b"no name of this page" in body) == (403, True)
    else:
        assert answered.status != 403
        assert method == "POST" or answered.status == 200


@pytest.mark.parametrize(
    ("host", "more", "asked", "known"),
    [
        ("127.0.0.1", [], "192.168.7.7", False),
        ("192.168.7.7", [], "192.168.7.7:7860", True),
        ("192.168.7.7", [], "192.168.7.8:7860", False),
        ("0.0.0.0", [], "192.168.7.7:7860", True),
        ("::", [], "[fe80::1]:7860", True),
        ("0.0.0.0", [], "evil.example", False),
        ("0.0.0.0", ["lips.example"], "Lips.Example:443", True),
        ("127.0.0.1", ["lips.example"], "other.example", False),
    ],
)
def test_names_that_the_options_allow(host: str, more: list[str], asked: str, known: bool):
    from latentsync.app import KnownHosts

    async def nothing(scope, receive, send) -> None: ...

    assert KnownHosts(nothing, host=host, more=more).knows(asked) is known


def test_the_page_is_not_rendered_by_a_second_server(monkeypatch: pytest.MonkeyPatch, tmp_path):
    from latentsync.app import Engine, serve
    from pipeline.inputs import POINTS, SeesLight

    monkeypatch.setenv("GRADIO_SSR_MODE", "True")
    engine = Engine(build_tiny_model(), SeesLight(POINTS), tmp_path, presets_of_the_command())
    page = serve(engine, host="127.0.0.1", wait=False)
    assert page.ssr_mode is False
    page.close()
    gc.collect()
