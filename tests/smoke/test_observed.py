"""What a run folder tells whoever opens it, and what is refused before the first step."""

import json
from pathlib import Path

import av
import pytest
from hydra import compose, initialize_config_dir

from latentsync.cli.environment import describe_git, record_environment
from latentsync.cli.run import conf_dir, register_resolvers
from latentsync.training.callbacks import read_curves
from smoke.tiny import TINY_UNET, run


def test_sample_videos_show_truth_above_drawn(work: Path, stage1_run: Path, syncnet_run: Path):
    run_dir = run(
        work, "demo/unet_stage2", "samples", "callbacks=samples",
        f"stage1='{stage1_run / 'model'}'", f"syncnet='{syncnet_run / 'model'}'",
        "data.batch_size=2", "callbacks.samples.every_n_steps=2",
        "callbacks.samples.sampler.num_steps=2",
    )  # fmt: skip
    (path,) = (run_dir / "samples").iterdir()
    assert path.name == "step_0000002.mp4"
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 16
    assert frames[0].shape == (2 * 64, 2 * 64, 3)
    ((step, cosine),) = read_curves(run_dir / "csv")["val/sample_sync"]
    assert step == 1
    assert -1 <= cosine <= 1


def test_a_run_folder_holds_its_environment(stage1_run: Path):
    (entry, *_) = json.loads((stage1_run / "environment.json").read_text())
    assert entry["packages"]["torch"].startswith("2.")
    assert {"command", "git", "python", "platform", "devices"} <= set(entry)


def test_every_start_of_a_run_adds_an_entry(tmp_path: Path):
    for _ in range(2):
        record_environment(tmp_path / "environment.json")
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 2


def test_a_folder_outside_any_repository_has_no_git_state(tmp_path: Path):
    assert describe_git(tmp_path) is None


def test_features_of_another_encoder_are_refused_with_both_shapes(work: Path):
    with pytest.raises(ValueError, match=r"24 tokens of 80 numbers a frame, the UNet takes 24 of"):
        run(
            work, "demo/unet_stage1", "other_encoder", *TINY_UNET, f"vae='{work / 'vae'}'",
            "data.batch_size=2", "task.model.unet.audio_projection.dim_in=384",
        )  # fmt: skip


def test_latents_of_another_vae_are_refused(work: Path):
    with pytest.raises(ValueError, match=r"have 8 channels, the model's VAE makes 4"):
        run(
            work, "demo/unet_stage1", "other_vae", *TINY_UNET, f"vae='{work / 'sd_vae'}'",
            "data.batch_size=2", "task.model.unet.in_channels=13",
            "task.model.unet.out_channels=4",
        )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["sweep=learning_rate"],
        ["hparams_search=optuna"],
        ["callbacks=syncnet"],
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
    ],
)
def test_variants_compose(words: list[str]):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["experiment=demo/syncnet", *words], return_hydra_config=True)
    assert config.trainer.plugins[0]._target_ == "latentsync.training.WholeCheckpoints"
