"""Exporting a checkpoint from its run folder gives what the run itself would have written at its
end."""

import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.diffusion.ddpm import SCHEDULES
from latentsync.models import (
    LipSyncModel,
    MelAudioEncoder,
    StableSyncNet,
    UNet,
    WhisperAudioEncoder,
    load_network,
    save_network,
)
from latentsync.models.adapted import recording_of
from latentsync.weights import export_model, load_official_unet, model_folder
from latentsync.weights.checkpoints import audio_encoder, scheduler
from latentsync.weights.files import kind_of, read
from weights.published import tiny_vae

UNET = [
    "task.model.unet.block_out_channels=[32,32]",
    "task.model.unet.attention_levels=[false,true]",
    "task.model.unet.layers_per_block=1",
    "task.model.unet.audio_projection=null",
    "task.model.unet.cross_attention_dim=80",
    "task.model.model_format.resolution=64",
]


WHOSE = {"adapted": {"video": "me.mp4", "sha256": "12ab"}}  # recording, by run


def start(run_dir: Path, experiment: str, *overrides: str) -> LightningModule:
    """What train.py leaves after its first step: config.yaml and a checkpoint; returns the task."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [f"experiment={experiment}", f"paths.run_dir={run_dir}", *overrides]
        config = compose("train", overrides=words)
    run_dir.mkdir()
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    torch.manual_seed(5)
    task = instantiate(config.task, _convert_="all")
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    task.trainer = trainer
    trainer.save_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    return task


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of stage 1, of stage 2 and an adaptation on top of it, and of a SyncNet."""
    folder = tmp_path_factory.mktemp("runs")
    save_network(tiny_vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4), folder / "vae")
    data = ["data.train_manifest=set", "data.val_manifest=set", f"vae={folder}/vae"]
    unet = [*UNET, "task.model.unet.in_channels=13", "task.model.unet.out_channels=4"]
    unet += ["task.model.unet.num_attention_heads=8", "task.model.unet.norm_num_groups=32"]
    task = start(folder / "stage1", "demo/unet_stage1", *data, *unet)
    task.export(folder / "stage1" / "model")
    save_network(tiny_demo_syncnet(), folder / "syncnet_model")
    more = [f"stage1={folder}/stage1/model", f"syncnet={folder}/syncnet_model", *data[:2]]
    task = start(folder / "stage2", "demo/unet_stage2", *more)
    task.export(folder / "stage2" / "model")
    more = [f"ckpt={folder}/stage1/model", "+task.model.adapted_to={video:me.mp4,sha256:12ab}"]
    task = start(folder / "adapted", "demo/adapt_base", *data[:2], *more)
    task.export(folder / "adapted" / "model")
    task = start(folder / "syncnet", "demo/syncnet", *data[:2])
    task.export(folder / "syncnet" / "model")
    return folder


def tiny_demo_syncnet() -> StableSyncNet:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return instantiate(compose("model/syncnet_demo").model, _convert_="all")


@pytest.mark.parametrize("stage", ["stage1", "stage2", "adapted"])
def test_a_unets_checkpoint_becomes_its_runs_model(runs: Path, tmp_path: Path, stage: str):
    export_model(runs / stage / "checkpoints/last.ckpt", tmp_path / "model")
    written = LipSyncModel.from_pretrained(runs / stage / "model")
    exported = LipSyncModel.from_pretrained(tmp_path / "model")
    ours, theirs = exported.unet.state_dict(), written.unet.state_dict()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert exported.unet.config.motion == written.unet.config.motion
    assert exported.format == written.format
    assert exported.process.to_config() == written.process.to_config()
    assert exported.training == written.training
    assert exported.audio_encoder.states_name == written.audio_encoder.states_name
    assert recording_of(exported) == WHOSE.get(stage)
    torch.testing.assert_close(
        exported.codec.vae.net.state_dict(), written.codec.vae.net.state_dict(), rtol=0, atol=0
    )


def test_an_adapted_run_with_an_unknown_option_is_refused(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "adapted", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = OmegaConf.load(path)
    config.task.model.colour = "red"
    OmegaConf.save(config, path)
    with pytest.raises(ValueError, match=r"last\.ckpt describes no adapted model: .*colour"):
        export_model(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "model")


def test_a_run_whose_losses_and_weights_were_two_maps_is_read(runs: Path, tmp_path: Path):
    """As in older config.yaml files, with every default in them."""
    shutil.copytree(runs / "stage1", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = OmegaConf.load(path)
    terms = config.task.losses
    config.task.loss_weights = {name: term.weight for name, term in terms.items()}
    config.task.losses = {name: term.loss for name, term in terms.items()}
    config.task.model.model_format.update({"num_frames": 16, "fps": 25.0, "mask": "mask"})
    OmegaConf.save(config, path)
    export_model(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "model")
    written = LipSyncModel.from_pretrained(runs / "stage1" / "model")
    exported = LipSyncModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(
        exported.unet.state_dict(), written.unet.state_dict(), rtol=0, atol=0
    )
    assert exported.format == written.format


def test_a_checkpoint_becomes_an_official_file(runs: Path, tmp_path: Path):
    export_model(runs / "stage2" / "checkpoints/last.ckpt", tmp_path / "unet.pt")
    net = load_official_unet(tmp_path / "unet.pt")
    trained = load_network(UNet, runs / "stage2/model/unet")
    torch.testing.assert_close(net.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_a_syncnets_checkpoint_becomes_a_folder(runs: Path, tmp_path: Path):
    export_model(runs / "syncnet" / "checkpoints/last.ckpt", tmp_path / "model")
    ours, theirs = (
        load_network(StableSyncNet, folder).state_dict()
        for folder in (tmp_path / "model", runs / "syncnet" / "model")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_inference_takes_a_checkpoint_and_keeps_its_folder(runs: Path, tmp_path: Path):
    checkpoint = runs / "stage1" / "checkpoints/last.ckpt"
    folder = model_folder(checkpoint, cache=tmp_path)
    written = (folder / "config.json").stat().st_mtime_ns
    assert model_folder(checkpoint, cache=tmp_path) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written


def test_a_checkpoint_is_no_published_file(runs: Path, tmp_path: Path):
    checkpoint = runs / "stage1" / "checkpoints/last.ckpt"
    assert kind_of(read(checkpoint)) == "training checkpoint of a UNet"
    with pytest.raises(ValueError, match="training checkpoint of a UNet, not a published file"):
        load_official_unet(checkpoint)
    (tmp_path / "lost").mkdir()
    lost = tmp_path / "lost" / "last.ckpt"
    lost.write_bytes(checkpoint.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"config\.yaml.*keep checkpoints in the folder"):
        export_model(lost, tmp_path / "m")


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_checkpoint_has_the_scheduler_its_run_had(name: str):
    node = {"_target_": f"diffusers.{SCHEDULES[name].__name__}", "beta_start": 0.003}
    made = scheduler(node, Path("last.ckpt"))
    assert type(made) is SCHEDULES[name]
    assert made.config.beta_start == 0.003


@pytest.mark.parametrize("target", ["diffusers.EulerDiscreteScheduler", "os.system"])
def test_a_scheduler_without_a_name_is_no_other(target: str):
    with pytest.raises(ValueError, match=rf"last\.ckpt.*{target}.*DDIMScheduler"):
        scheduler({"_target_": target}, Path("last.ckpt"))


@pytest.mark.parametrize(
    "target", ["mine.Wav2Vec", "mine.Wav2Vec.from_pretrained", "os.system", "x.from_pretrained"]
)
def test_an_encoder_without_a_name_is_no_whisper(target: str):
    with pytest.raises(ValueError, match=r"last\.ckpt.*mel, whisper.*model/ folder"):
        audio_encoder({"_target_": target, "folder": "anything"}, Path("last.ckpt"))


def test_the_encoders_that_have_a_name(published: Path):
    mel = audio_encoder({"_target_": "latentsync.models.MelAudioEncoder"}, Path("last.ckpt"))
    assert isinstance(mel, MelAudioEncoder)
    path = str(published.parent / "whisper/tiny.pt")
    node = {"_target_": "latentsync.weights.load_official_whisper", "path": path}
    assert isinstance(audio_encoder(node, Path("last.ckpt")), WhisperAudioEncoder)


@pytest.mark.parametrize("text", ["", "[]", "task: 3", "a: [", "\x00", "task: {a: b"])
def test_a_broken_config_of_a_run_is_one_line_with_its_file(runs: Path, tmp_path: Path, text: str):
    shutil.copytree(runs / "syncnet", tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is not") as raised:
        export_model(tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "m")
    assert "\n" not in str(raised.value)
