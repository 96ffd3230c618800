"""One speaker's video => a model folder, in one command that goes on where it was stopped."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from latentsync import lipsync
from latentsync.cli.adapt import adapt, sampler_words
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.train import run_of, train
from latentsync.data.manifest import read_manifest
from latentsync.data.synthetic import render_clip
from latentsync.diffusion.sampler import Sampler
from latentsync.models import CentredMelAudioEncoder, LipSyncModel, UNet, WhisperAudioEncoder
from latentsync.models.adapted import recording_of
from latentsync.pipeline.plan import Choice
from latentsync.prepare import encode_audio
from smoke.tiny import POINTS, fixed_face

SECONDS = 7.0
PREPARE = f"{{faces:fixed,faces.points:{json.dumps(POINTS)},prepare.min_seconds:2.6}}"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning"
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn speaker of seven seconds, with the voice."""
    folder = tmp_path_factory.mktemp("film")
    render_clip(folder / "me", seed=5, seconds=SECONDS, size=128)
    return folder / "me.mp4"


def adapted(film: Path, run_dir: Path, model: Path, *words: str) -> float | None:
    register_resolvers()
    small = [
        "experiment=demo/adapt",
        "+debug=tiny",
        f"video='{film}'",
        f"ckpt='{model}'",
        f"paths.run_dir='{run_dir}'",
        "adapt.demands.min_seconds=4",
        "adapt.demands.max_persons=null",  # a head at fixed points looks like several
        "adapt.held_out=0.4",
        f"+adapt.prepare={PREPARE}",
        "adapt.vae={trainer.max_steps:2}",
        "adapt.preset=balanced",  # with guidance, so that sound is seen after two steps
        "adapt.sampler.num_steps=8",
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[*small, *words])
    assert run_of(config) is adapt
    return adapt(config)


@pytest.fixture(scope="module")
def run_dir(film: Path, stage1_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole adaptation of a few steps."""
    folder = tmp_path_factory.mktemp("adapted") / "me"
    assert adapted(film, folder, stage1_run / "model") is not None
    return folder


def test_the_end_of_the_recording_is_held_out(run_dir: Path):
    ends = {}
    for part in ("train", "val"):
        clips = read_manifest(run_dir / "data" / part)
        ends[part] = (
            min(clip.start_frame for clip in clips),
            max(clip.start_frame + clip.num_frames for clip in clips),
        )
    # 25 frames a second; the last two fifths of 175 frames.
    assert ends == {"train": (0, 105), "val": (105, 175)}


def test_vae_and_unet_are_trained_and_the_rest_is_the_models(run_dir: Path, stage1_run: Path):
    before, after = (
        LipSyncModel.from_pretrained(folder / "model") for folder in (stage1_run, run_dir)
    )
    assert after.format == replace(before.format, reference_mouth=False)
    for one, other in ((before.unet, after.unet), (before.codec.vae.net, after.codec.vae.net)):
        same = [
            torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
        ]
        assert not all(same)
    # The VAE of the folder is the one whose latents the UNet was trained on.
    trained = (run_dir / "vae" / "model" / "config.json").read_text()
    stored = json.loads((run_dir / "model" / "vae" / "config.json").read_text())
    assert stored["latents_mean"] == json.loads(trained)["latents_mean"]


def test_a_base_that_hears_centred_rows_is_trained_and_adapted(
    run_dir: Path, film: Path, stage1_run: Path, tmp_path: Path
):
    register_resolvers()
    data = shutil.copytree(run_dir / "data", tmp_path / "data")
    for part in ("train", "val"):
        encode_audio(data / part, CentredMelAudioEncoder())
    words = (
        *("experiment=demo/adapt_base", "+debug=tiny", f"paths.run_dir='{tmp_path / 'base'}'"),
        *(f"ckpt='{stage1_run / 'model'}'", f"vae='{run_dir / 'vae' / 'model'}'"),
        *(f"data.train_manifest='{data / 'train'}'", f"data.val_manifest='{data / 'val'}'"),
    )
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert train(compose("train", overrides=words)) is not None
    base = LipSyncModel.from_pretrained(tmp_path / "base" / "model")
    assert base.audio_encoder.states_name == "centred_mel"
    assert not base.format.reference_mouth
    assert recording_of(base) is None
    assert adapted(film, tmp_path / "me", tmp_path / "base" / "model") is not None
    after = LipSyncModel.from_pretrained(tmp_path / "me" / "model")
    assert after.audio_encoder.states_name == "centred_mel"
    assert recording_of(after) is not None
    # It was trained on the centred states, not on the ones that the clips were prepared with.
    folder = tmp_path / "me" / "data" / "train" / "features" / "centred_mel"
    assert len(list(folder.glob("*.safetensors"))) == len(read_manifest(folder.parents[1]))


def test_infer_takes_the_folder_and_says_whom_it_was_adapted_to(
    run_dir: Path, film: Path, tmp_path: Path
):
    report = lipsync(
        film, film.with_suffix(".wav"), tmp_path / "out.mp4",
        model=LipSyncModel.from_pretrained(run_dir / "model"), detector=fixed_face(),
        sampler=Sampler("ddim", num_steps=1, guidance_scale=1.0), choice=Choice(min_size=0),
    )  # fmt: skip
    assert report.num_frames == 175
    assert report.adapted_to is not None
    assert report.adapted_to["video"] == "me.mp4"
    assert len(report.adapted_to["sha256"]) == 64


def test_the_report_shows_truth_ceiling_before_and_after(run_dir: Path):
    figures = json.loads((run_dir / "report" / "figures.json").read_text())
    assert list(figures) == [
        "truth", "truth through the VAE", "before, own voice", "before, another sentence",
        "after, own voice", "after, another sentence",
    ]  # fmt: skip
    page = (run_dir / "report" / "report.html").read_text()
    assert "Adapted to me.mp4" in page
    # The VAE of two steps blurs the mouth away: nothing is said about its opening.
    assert figures["truth through the VAE"]["r_open"] < 0.9
    assert "not valid here" in page
    for name in ("before, own voice", "after, own voice"):
        assert figures[name]["r_open"] is figures[name]["chance"] is None
        assert figures[name]["psnr_inside"] > 0
    for name in ("before, another sentence", "after, another sentence"):
        assert figures[name]["r_open"] is not None
        assert figures[name]["psnr_inside"] is None  # there is no truth to compare with
    # Of the model before, with the other voice.
    for name in ("before, own voice", "after, another sentence"):
        assert figures[name]["flicker"] != figures["before, another sentence"]["flicker"]
    assert figures["truth"]["sharpness"] == 1.0
    for name in ("truth", "ceiling", "before", "before_other", "own", "other"):
        assert (run_dir / "report" / f"{name}_0.mp4").is_file()
        assert f'src="{name}_0.mp4"' in page


def test_the_same_command_goes_on_where_it_was_stopped(
    film: Path, stage1_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "me"
    with pytest.raises(ValueError, match=r"batch_size=5000 is more than"):
        adapted(film, folder, stage1_run / "model", "data.batch_size=5000")
    vae = folder / "vae" / "model" / "diffusion_pytorch_model.safetensors"
    made = vae.stat().st_mtime_ns
    caplog.set_level("INFO", logger="latentsync")
    assert adapted(film, folder, stage1_run / "model") is not None
    assert vae.stat().st_mtime_ns == made
    for name, is_kept in {"clips": True, "vae": True, "latents": True, "unet": False}.items():
        assert (f"{name}: kept from before" in caplog.text) == is_kept
    assert (folder / "report" / "report.html").is_file()
    # Once more: nothing is left to do; other options of the training are not taken in silence.
    caplog.clear()
    assert adapted(film, folder, stage1_run / "model") is None
    assert "other options" not in caplog.text
    assert adapted(film, folder, stage1_run / "model", "task.optimizer.lr=0.5") is None
    assert "trained with other options, task.optimizer.lr=0.5 (was 0.0006); to" in caplog.text
    # Other samples only make the report anew.
    caplog.clear()
    page = folder / "report" / "report.html"
    made = page.stat().st_mtime_ns
    adapted(film, folder, stage1_run / "model", "adapt.sampler.guidance_scale=3")
    assert "unet: kept from before" in caplog.text
    assert "preset=balanced sampler.num_steps=8 sampler.guidance_scale=3" in caplog.text
    assert page.stat().st_mtime_ns > made
    # With more steps only the UNet is trained on.
    adapted(film, folder, stage1_run / "model", "trainer.max_steps=3")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3


def test_a_second_training_adds_motion_to_the_adapted_model_and_keeps_the_first(
    film: Path, run_dir: Path, stage1_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "me"
    shutil.copytree(run_dir, folder, symlinks=True)
    words = ("adapt.stage2={trainer.max_steps:2}",)
    caplog.set_level("INFO", logger="latentsync")
    assert adapted(film, folder, stage1_run / "model", *words) is not None
    assert "step 4 of 6, unet: kept from before" in caplog.text
    # Two steps are too few to be seen in the figures; this is the model that the report shows.
    model = folder / "stage2_after_2" / "model"
    assert f"infer.py ckpt={model} preset=balanced sampler.num_steps=8 " in caplog.text
    first, second = (
        LipSyncModel.from_pretrained(folder / name / "model") for name in ("", "stage2_after_2")
    )
    assert (first.unet.config["motion"], second.unet.config["motion"]) == ("none", "decoder")
    assert recording_of(second) == recording_of(first)
    moving = [
        value.abs().sum()
        for name, value in second.unet.state_dict().items()
        if ".motion_" in name and name.endswith("proj_out.weight")
    ]
    assert moving  # they begin with 0, as they are the identity then
    assert all(total > 0 for total in moving)
    figures = json.loads((folder / "report" / "figures.json").read_text())
    before = json.loads((run_dir / "report" / "figures.json").read_text())
    assert figures["truth"] == before["truth"]
    # Once more: nothing is left to do; other options are not taken in silence.
    caplog.clear()
    assert adapted(film, folder, stage1_run / "model", *words) is None
    assert "other options" not in caplog.text
    other = (*words, "+adapt.stage2={task.optimizer.lr:0.5}")
    assert adapted(film, folder, stage1_run / "model", *other) is None
    assert "stage2: it was trained with other options, task.optimizer.lr=0.5 (was " in caplog.text


def test_the_report_listens_as_the_model_does(
    film: Path, stage1_run: Path, work: Path, tmp_path: Path
):
    """A model of Whisper's states, which are beside the mel of every clip."""
    model = LipSyncModel.from_pretrained(stage1_run / "model")
    heard = WhisperAudioEncoder.load(work / "whisper")
    projection = {**model.unet.config["audio_projection"], "dim_in": heard.width}
    model.unet = UNet.from_config({**model.unet.config, "audio_projection": projection})
    model.audio_encoder = heard
    model.save_pretrained(tmp_path / "model")
    assert adapted(film, tmp_path / "me", tmp_path / "model") is not None
    figures = json.loads((tmp_path / "me" / "report" / "figures.json").read_text())
    assert figures["after, another sentence"]["spread_open"] is not None


def test_a_folder_of_another_video_is_refused(run_dir: Path, stage1_run: Path, work: Path):
    with pytest.raises(ValueError, match=r"was made with other parameters \(video was"):
        adapted(work / "raw" / "1.mp4", run_dir, stage1_run / "model")


def test_too_little_speech_is_refused_before_anything_is_made(
    film: Path, stage1_run: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"me\.mp4 holds [\d.]+ s of speech, 15 s are needed"):
        adapted(film, tmp_path / "me", stage1_run / "model", "adapt.demands.min_seconds=15")
    assert not (tmp_path / "me" / "data").exists()


def test_the_reports_sampler_is_the_one_of_the_words_it_tells(film: Path):
    register_resolvers()
    words = ("experiment=demo/adapt", f"video='{film}'", "adapt.sampler.guidance_scale=1.75")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[*words, "adapt.preset=fast"])
        told = sampler_words(config.adapt)
        sampler = compose("infer", overrides=told).sampler
    assert told == ["preset=fast", "sampler.num_steps=1", "sampler.guidance_scale=1.75"]
    assert (sampler.num_steps, sampler.guidance_scale) == (1, 1.75)


def test_an_experiment_without_adapt_trains(work: Path):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=["experiment=demo/unet_stage1"])
    assert run_of(config) is train
