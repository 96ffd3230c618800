"""The command lines of `python -m latentsync.weights` and `infer.py ckpt=`."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.infer import load_model
from latentsync.models import LatentCodec, LipSyncModel, WhisperAudioEncoder, load_syncnet
from latentsync.weights import load_official_syncnet, load_official_vae, load_official_whisper
from latentsync.weights.__main__ import main
from latentsync.weights.files import read_state
from latentsync.weights.inspect import inspect
from official.recipe import official_shapes
from weights.published import tiny_syncnet


def test_import_then_export_gives_the_file_back(published: Path, tmp_path: Path):
    main(["import", str(published), str(tmp_path / "m"), "--version", "1.5"])
    main(["export", str(tmp_path / "m"), str(tmp_path / "unet.pt")])
    back, given = read_state(tmp_path / "unet.pt"), read_state(published)
    torch.testing.assert_close(back, given, rtol=0, atol=0)


LOADERS = {
    "stable_syncnet.pt": (load_official_syncnet, load_syncnet),
    "whisper/tiny.pt": (load_official_whisper, WhisperAudioEncoder.load),
    "vae/diffusion_pytorch_model.safetensors": (load_official_vae, LatentCodec.from_pretrained),
    "vae": (load_official_vae, LatentCodec.from_pretrained),
}


@pytest.mark.parametrize("name", LOADERS)
def test_import_makes_the_folder_that_training_asks_for(published: Path, tmp_path: Path, name: str):
    given, out = published.parent / name, tmp_path / "runs" / "folder"
    main(["import", str(given), str(out)])
    official, ours = LOADERS[name]
    states = [tensors_of(official(given)), tensors_of(ours(out))]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    with pytest.raises(SystemExit):
        main(["import", str(given), str(out)])


def tensors_of(network: object) -> dict[str, torch.Tensor]:
    for name in ("vae", "net", "net"):
        network = getattr(network, name, network)
    return network.state_dict()


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("eval_syncnet_S", "holds a SyncNet v2: it is read as it is"),
        ("s3fd", "holds a S3FD: it is read as it is"),
    ],
)
def test_a_file_of_which_no_folder_is_made_says_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str, told: str
):
    state = {key: torch.zeros(1) for key in official_shapes(manifest)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(SystemExit) as ended:
        main(["import", str(tmp_path / "x.pth"), str(tmp_path / "m")])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("key", ["a.lora_A.weight", "something.else"])
def test_no_folder_of_a_lora_or_of_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
):
    torch.save({key: torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "x.pt"), str(tmp_path / "m")])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "x.pt" in told


def test_what_the_user_can_put_right_is_one_line_and_status_2(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["import", str(published), str(tmp_path / "m")])
    assert ended.value.code == 2
    assert "--version 1.6" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("manifest", "kind", "num_parameters"),
    [
        ("unet_stage2", "UNet", 1_267_099_844),
        ("syncnet_16_pixel_attn", "SyncNet", 401_306_080),
        ("syncnet_16_pixel", "SyncNet", 371_766_496),
        ("syncnet_16_latent", "SyncNet", 65_544_416),
        ("syncnet_25_pixel", "SyncNet", 103_742_144),
        ("vae_sd15", "VAE", 83_653_863),
        ("eval_syncnet_S", "SyncNet v2", 13_631_616),
        ("s3fd", "S3FD", 22_459_110),
    ],
)
def test_inspect_knows_every_published_file_by_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str, kind: str, num_parameters: int
):
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in official_shapes(manifest).items()}
    (tmp_path / "x.pt").touch()
    monkeypatch.setattr("latentsync.weights.inspect.read", lambda path: {"state_dict": state})
    found = inspect(tmp_path / "x.pt")
    assert (found["kind"], found["parameters"]) == (kind, num_parameters)
    assert found["tensors"] == len(state)


def test_inspect_tells_what_tensors_do_not_say(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = inspect(published)
    assert found["resolution"] == "256 for 1.5, 512 for 1.6"
    assert (found["motion"], found["cross_attention_dim"]) == ("decoder", 384)
    assert inspect(published.parent / "whisper/tiny.pt")["precision"] == "float16"
    sync = inspect(published.parent / "stable_syncnet.pt")
    assert sync["parameters"] == sum(value.numel() for value in tiny_syncnet().parameters())
    main(["import", str(published), str(tmp_path / "m"), "--version", "1.6"])
    assert inspect(tmp_path / "m")["resolution"] == 512


def test_infer_imports_a_published_file_once(published: Path, tmp_path: Path):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("infer", overrides=[f"ckpt={published}", "published.version=1.6"])
    model = load_model(config)
    assert isinstance(model, LipSyncModel)
    assert (model.format.resolution, model.format.aligner) == (512, "official")
    (folder,) = (tmp_path / "cache/latentsync/models").iterdir()
    written = (folder / "config.json").stat().st_mtime_ns
    load_model(config)
    assert (folder / "config.json").stat().st_mtime_ns == written
