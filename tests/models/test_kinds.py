"""What a model was trained with comes back as itself, or is refused before training."""

import json
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from safetensors.torch import load_file, save_file

from latentsync.models import LipSyncModel, MelAudioEncoder, StateStream, register_audio_encoder
from latentsync.models.kinds import AUDIO_ENCODERS, SCHEDULES
from models.tiny import build_model

REFUSED = ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler")


class Scaled:
    """An audio encoder of another package: a mel with a weight."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def __call__(self, waveform: torch.Tensor, *, parity: bool = False) -> torch.Tensor:
        return MelAudioEncoder()(waveform) * self.scale

    def stream(self, waveform: torch.Tensor, *, parity: bool = False) -> StateStream:
        states = self(waveform)
        return StateStream([(0, len(states))], lambda _: states)

    def to(self, device: torch.device | str) -> "Scaled":
        self.scale = self.scale.to(device)
        return self


def save_scaled(encoder: Scaled, folder: Path) -> None:
    folder.mkdir()
    save_file({"scale": encoder.scale}, folder / "scale.safetensors")


def load_scaled(folder: Path) -> Scaled:
    return Scaled(load_file(folder / "scale.safetensors")["scale"])


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentsync.models.kinds.AUDIO_ENCODERS", names := dict(AUDIO_ENCODERS))
    monkeypatch.setattr("latentsync.models.serialization.AUDIO_ENCODERS", names)
    register_audio_encoder("scaled", Scaled, save=save_scaled, load=load_scaled)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scheduler_comes_back_as_itself(tmp_path: Path, name: str) -> None:
    scheduler = SCHEDULES[name](beta_start=0.001, num_train_timesteps=500)
    build_model(MelAudioEncoder(), scheduler).save_pretrained(tmp_path)
    loaded = LipSyncModel.from_pretrained(tmp_path).scheduler
    assert type(loaded) is type(scheduler)
    assert dict(loaded.config).items() >= {"beta_start": 0.001, "num_train_timesteps": 500}.items()
    torch.testing.assert_close(loaded.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=0)


def test_a_folder_that_names_no_scheduler_has_the_one_all_had(tmp_path: Path) -> None:
    build_model(MelAudioEncoder()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["scheduler"]["name"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(LipSyncModel.from_pretrained(tmp_path).scheduler) is DDIMScheduler


@pytest.mark.parametrize("name", REFUSED)
def test_a_scheduler_that_no_folder_holds_is_refused_before_training(name: str) -> None:
    scheduler: SchedulerMixin = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=rf"with a {name}; there are DDIMScheduler"):
        build_model(MelAudioEncoder(), scheduler).check_can_be_saved()


def test_an_encoder_without_a_name_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"can hold a Scaled.*register_audio_encoder"):
        build_model(Scaled(torch.ones(1))).check_can_be_saved()


def test_an_encoder_with_a_name_comes_back_as_itself(registered: None, tmp_path: Path) -> None:
    model = build_model(Scaled(torch.tensor([3.0])))
    model.check_can_be_saved()
    model.save_pretrained(tmp_path)
    sound = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    loaded = LipSyncModel.from_pretrained(tmp_path).audio_encoder
    torch.testing.assert_close(loaded(sound), 3 * MelAudioEncoder()(sound), rtol=0, atol=0)


def test_a_folder_with_an_encoder_of_another_program_says_what_to_do(tmp_path: Path) -> None:
    build_model(MelAudioEncoder()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["audio_encoder"]["name"] = "scaled"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match='encoder "scaled"; known are mel, whisper: import'):
        LipSyncModel.from_pretrained(tmp_path)


def test_a_name_means_one_class(registered: None) -> None:
    with pytest.raises(ValueError, match="called 'mel' already: MelAudioEncoder"):
        register_audio_encoder("mel", Scaled, save=save_scaled, load=load_scaled)
    register_audio_encoder("scaled", Scaled, save=save_scaled, load=load_scaled)
