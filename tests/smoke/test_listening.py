"""A set without the audio states that a model needs is rejected before any network is built."""

from pathlib import Path

import pytest

from latentsync.data import AudioStates, attach_states, read_manifest
from latentsync.models import (
    LipSyncModel,
    MelAudioEncoder,
    WhisperAudioEncoder,
)
from latentsync.models.serialization import save_audio_encoder
from latentsync.prepare import Recipe, encode_audio, encode_latents, prepare_clips
from smoke.tiny import TINY_UNET, fixed_face, run, tiny_whisper


@pytest.fixture(scope="module")
def mel_set(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "mel set"
    recipe = Recipe(make_detector=fixed_face, resolution=64, occlusion=None)
    prepare_clips(work / "raw", folder, stages=recipe.stages())
    return folder


@pytest.fixture(scope="module")
def stage1_of_whisper(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with nothing but the audio encoder: reading anything else would fail."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    LipSyncModel.from_pretrained(
        run(
            work, "demo/unet_stage1", "for_listening", *TINY_UNET,
            f"vae='{work / 'vae'}'",
        ) / "model"
    ).save_pretrained(folder)  # fmt: skip
    config = (folder / "config.json").read_text()
    save_audio_encoder(WhisperAudioEncoder.load(work / "whisper"), folder)
    (folder / "config.json").write_text(config.replace('"name": "mel"', '"name": "whisper"'))
    (folder / "unet" / "config.json").unlink()
    return folder


@pytest.mark.parametrize("experiment", ["unet_stage1", "unet_stage2", "unet_stage2_efficient"])
def test_training_stops_before_it_builds_and_says_the_command(
    work: Path, mel_set: Path, stage1_of_whisper: Path, experiment: str
):
    stage1 = experiment == "unet_stage1"
    files = (
        {"vae": "nowhere", "whisper": work / "whisper"}
        if stage1
        else {"stage1": stage1_of_whisper, "syncnet": "nowhere", "vgg": "nowhere"}
    )
    folder = work / "whisper" if stage1 else stage1_of_whisper / "audio_encoder"
    sets = [f"data.{part}_manifest='{mel_set}'" for part in ("train", "val")]
    with pytest.raises(FileNotFoundError) as raised:
        run(
            work, experiment, f"deaf_{experiment}", *sets,
            *(f"{name}='{path}'" for name, path in files.items()),
        )  # fmt: skip
    assert str(raised.value).endswith(
        f"python prepare.py stage=features output='{mel_set}' "
        f"audio_encoder=whisper audio_encoder.folder={folder}"
    )


def test_a_demo_model_on_a_set_of_whisper_is_refused_as_well(work: Path, tmp_path: Path):
    def make() -> WhisperAudioEncoder:
        return WhisperAudioEncoder(tiny_whisper().encoder)

    recipe = Recipe(
        make_detector=fixed_face, resolution=64, make_audio_encoder=make, occlusion=None
    )
    prepare_clips(work / "raw", tmp_path / "set", stages=recipe.stages())
    encode_latents(tmp_path / "set", work / "vae")
    sets = [f"data.{part}_manifest='{tmp_path / 'set'}'" for part in ("train", "val")]
    asked = [work, "demo/unet_stage1", "deaf_demo", *TINY_UNET, *sets]
    with pytest.raises(FileNotFoundError, match=r"audio_encoder=mel$"):
        run(*asked, "vae=nowhere")
    encode_audio(tmp_path / "set", MelAudioEncoder())
    clips = read_manifest(tmp_path / "set")
    assert attach_states(clips, AudioStates("mel"))[0].states_path.parent.name == "mel"

    assert (run(*asked, f"vae='{work / 'vae'}'") / "model" / "config.json").is_file()
