"""The parts in docs/extending.md, installed as another package, train, export, load and infer."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentsync.diffusion import NOISE_PROCESSES, Sampler
from latentsync.media.video import read_frames
from latentsync.models import LipSyncModel, frame_tokens, registered_audio_encoder
from latentsync.models.kinds import AUDIO_ENCODERS
from latentsync.pipeline import Choice, Timing, lipsync
from latentsync.prepare import encode_audio
from latentsync.weights.folders import model_folder
from pipeline.inputs import picture, write_video, write_voice
from smoke.tiny import TINY_UNET, fixed_face, run

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(py|toml)\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
GROUP = re.compile(r'^\[project\.entry-points\."(.+)"\]\n((?:\w+ = ".+"\n)+)', re.MULTILINE)


def install(site: Path) -> None:
    """The page's package as pip installs it: its modules, and a dist-info with entry points."""
    entries = []
    for language, path, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "py":
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, encoding="utf-8")
        else:
            entries += [f"[{group}]\n{lines}" for group, lines in GROUP.findall(text)]
    info = site / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(entries).replace('"', ""), encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site-packages")
    install(site)
    before = [dict(registry._parts) for registry in (AUDIO_ENCODERS, NOISE_PROCESSES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield
    AUDIO_ENCODERS._parts, NOISE_PROCESSES._parts = before
    for name in [name for name in sys.modules if name.split(".")[0] == "my_parts"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gains")
    save_file({"gains": torch.linspace(0.5, 2, 16)}, folder / "gains.safetensors")
    return folder


@pytest.fixture(scope="module")
def loudness_run(installed: None, gains: Path, work: Path) -> Path:
    encode_audio(work / "set", registered_audio_encoder("loudness", gains))
    return run(
        work, "demo/unet_stage1", "loudness", *TINY_UNET, f"vae='{work / 'vae'}'",
        "audio_encoder=registered",
        "audio_encoder.name=loudness", f"audio_encoder.folder='{gains}'",
        "task.model.unet.audio_projection=null",
    )  # fmt: skip


def test_nothing_is_imported_before_it_is_asked_for(installed: None) -> None:
    assert "loudness" in AUDIO_ENCODERS.names()
    assert "middle_flow" in NOISE_PROCESSES.names()
    if "my_parts.flow" not in sys.modules:
        assert NOISE_PROCESSES.find("middle_flow").__module__ == "my_parts.flow"


def test_an_encoder_of_another_package_comes_back_from_folder_and_checkpoint(
    loudness_run: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    sound = torch.randn(16000, generator=generator)
    checkpoint = loudness_run / "checkpoints" / "last.ckpt"
    for folder in (loudness_run / "model", model_folder(checkpoint, cache=tmp_path)):
        encoder = LipSyncModel.from_pretrained(folder).audio_encoder
        assert type(encoder).__module__ == "my_parts.loudness"
        states = encoder(sound)
        assert states.shape == (25, 1, 16)
        own = states[:, 0, :] / torch.linspace(0.5, 2, 16)
        torch.testing.assert_close(own[:, 0], sound.view(25, 640).square().mean(dim=1).sqrt())


def test_a_frame_hears_the_states_around_its_own_time(installed: None, gains: Path) -> None:
    """At 25 states per second a frame of 25 fps has one state; that of frame 7 is the seventh."""
    states = torch.arange(25.0)[:, None, None].expand(-1, 1, 16)
    tokens = frame_tokens(states, torch.tensor([7]), before=1, after=2, fps=25.0, rate=25.0)
    assert tokens[0, :, 0].tolist() == [6, 7, 8]


def test_a_model_with_it_redraws_a_video(loudness_run: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", [picture(index) for index in range(20)])
    voice = write_voice(tmp_path / "voice.wav", 0.8)
    report = lipsync(
        video, voice, tmp_path / "out.mp4",
        model=LipSyncModel.from_pretrained(loudness_run / "model"), detector=fixed_face(),
        sampler=Sampler("dpmpp", 1, guidance_scale=1.0), timing=Timing(),
        choice=Choice(min_size=0, min_seconds=0),
    )  # fmt: skip
    assert report.num_frames_with_face == 20
    assert sum(1 for _ in read_frames(tmp_path / "out.mp4")) == 20


def test_a_process_of_another_package_trains_and_comes_back(
    installed: None, work: Path, tmp_path: Path
) -> None:
    folder = run(
        work, "demo/unet_stage1", "middle_flow", *TINY_UNET, f"vae='{work / 'vae'}'",
        "process=registered", "process.name=middle_flow",
        "+process.values.num_train_timesteps=500",
    )  # fmt: skip
    checkpoint = folder / "checkpoints" / "last.ckpt"
    for path in (folder / "model", model_folder(checkpoint, cache=tmp_path)):
        process = LipSyncModel.from_pretrained(path).process
        assert type(process).__module__ == "my_parts.flow"
        assert process.to_config() == {"num_train_timesteps": 500}


def test_a_folder_that_names_a_part_of_no_package_imports_nothing(
    loudness_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where the package is not installed."""
    monkeypatch.setattr(AUDIO_ENCODERS, "_parts", {})
    monkeypatch.setattr(AUDIO_ENCODERS, "group", "nobody.declares")
    with pytest.raises(ValueError, match=r'"loudness".*install the package that brings it'):
        LipSyncModel.from_pretrained(loudness_run / "model")
