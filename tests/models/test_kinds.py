"""Parts a model was trained with are restored from its folder, or rejected before training."""

import json
from pathlib import Path
from typing import ClassVar

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from safetensors.torch import load_file, save_file

from latentsync.diffusion import DDPM, FlowMatching
from latentsync.diffusion.ddpm import SCHEDULES
from latentsync.models import LipSyncModel, MelAudioEncoder, StateStream, register_audio_encoder
from latentsync.models.kinds import AUDIO_ENCODERS
from models.tiny import build_model

REFUSED = ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler")


class Scaled:
    """An audio encoder of another package: a mel with a weight."""

    name: ClassVar[str] = "scaled"
    rate, width, states_name = 50.0, 80, "scaled"

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def __call__(self, waveform: torch.Tensor, *, overlap: bool = True) -> torch.Tensor:
        return MelAudioEncoder()(waveform) * self.scale

    def stream(self, waveform: torch.Tensor, *, overlap: bool = True) -> StateStream:
        states = self(waveform)
        return StateStream([(0, len(states))], lambda _: states)

    def to(self, device: torch.device | str) -> "Scaled":
        self.scale = self.scale.to(device)
        return self

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_file({"scale": self.scale}, folder / "scale.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Scaled":
        return cls(load_file(folder / "scale.safetensors")["scale"])


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUDIO_ENCODERS, "_parts", dict(AUDIO_ENCODERS._parts))
    register_audio_encoder(Scaled)


def edited(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in {**config, **values}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scheduler_comes_back_as_itself(tmp_path: Path, name: str) -> None:
    scheduler = SCHEDULES[name](beta_start=0.001, num_train_timesteps=500)
    build_model(MelAudioEncoder(), DDPM(scheduler)).save_pretrained(tmp_path)
    loaded = LipSyncModel.from_pretrained(tmp_path).process.scheduler
    assert type(loaded) is type(scheduler)
    assert dict(loaded.config).items() >= {"beta_start": 0.001, "num_train_timesteps": 500}.items()
    torch.testing.assert_close(loaded.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=0)


def test_flow_matching_comes_back_as_itself(tmp_path: Path) -> None:
    build_model(MelAudioEncoder(), FlowMatching(num_train_timesteps=77)).save_pretrained(tmp_path)
    assert "scheduler" not in json.loads((tmp_path / "config.json").read_text())
    loaded = LipSyncModel.from_pretrained(tmp_path).process
    assert type(loaded) is FlowMatching
    assert loaded.num_train_timesteps == 77


def test_a_folder_of_before_processes_had_names_is_a_ddpm_with_its_schedule(tmp_path: Path) -> None:
    scheduler = DDIMScheduler(beta_start=0.002, prediction_type="v_prediction")
    build_model(MelAudioEncoder(), DDPM(scheduler)).save_pretrained(tmp_path)
    edited(tmp_path, process=None)
    loaded = LipSyncModel.from_pretrained(tmp_path).process
    assert type(loaded) is DDPM
    assert loaded.prediction_type == "v_prediction"
    assert torch.equal(loaded.scheduler.alphas_cumprod, scheduler.alphas_cumprod)


def test_a_folder_that_names_no_scheduler_has_the_one_all_had(tmp_path: Path) -> None:
    build_model(MelAudioEncoder()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["scheduler"]["name"]
    edited(tmp_path, scheduler=config["scheduler"])
    assert type(LipSyncModel.from_pretrained(tmp_path).process.scheduler) is DDIMScheduler


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ({"name": "os.system"}, '"os.system"; there are ddpm, flow_matching'),
        ({"name": ["ddpm"]}, "no noise process is called"),
        ({}, "no noise process is called null"),
        ("flow_matching", "an object was expected"),
        ({"name": "ddpm"}, "lacks scheduler"),
        ({"name": "flow_matching", "num_train_timesteps": 0}, "must be 1 or more, got 0"),
        ({"name": "flow_matching", "num_train_timesteps": "many"}, '"many"'),
        ({"name": "flow_matching", "shift": 3.0}, "shift"),
    ],
)
def test_a_process_that_no_program_knows_is_refused_with_its_file(
    tmp_path: Path, process: object, said: str
) -> None:
    build_model(MelAudioEncoder()).save_pretrained(tmp_path)
    edited(tmp_path, process=process, scheduler=None)
    with pytest.raises(ValueError, match=str(tmp_path)) as raised:
        LipSyncModel.from_pretrained(tmp_path)
    assert said in str(raised.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_scheduler_that_no_folder_holds_is_refused_before_training(name: str) -> None:
    scheduler: SchedulerMixin = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=rf"with a {name}; there are DDIMScheduler"):
        build_model(MelAudioEncoder(), DDPM(scheduler)).check_can_be_saved()


def test_a_process_without_a_name_is_refused_before_training() -> None:
    class Own(FlowMatching):
        """Not registered: its folder would be loaded with another process."""

    with pytest.raises(ValueError, match=r"can hold a Own.*latentsync\.noise_processes"):
        build_model(MelAudioEncoder(), Own()).check_can_be_saved()


def test_an_encoder_without_a_name_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"can hold a Scaled.*latentsync\.audio_encoders"):
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
    edited(tmp_path, audio_encoder={"name": "scaled"})
    with pytest.raises(ValueError, match=r'encoder is called "scaled"; there are mel, .*: install'):
        LipSyncModel.from_pretrained(tmp_path)


def test_a_name_means_one_class(registered: None) -> None:
    class Other(Scaled):
        name = "mel"

    with pytest.raises(ValueError, match="'mel' is MelAudioEncoder"):
        register_audio_encoder(Other)
    register_audio_encoder(Scaled)


def test_a_class_without_a_name_is_not_registered() -> None:
    class Nameless:
        """Does not declare a name."""

    with pytest.raises(ValueError, match="Nameless has no name"):
        register_audio_encoder(Nameless)
