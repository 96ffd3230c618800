"""Published files become self-describing model folders, and can be exported unchanged."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.models import LipSyncModel, load_network, load_syncnet, save_network
from latentsync.models.unet import UNet
from latentsync.weights import (
    export_model,
    export_official_unet,
    import_official,
    load_official_syncnet,
    model_folder,
)
from latentsync.weights.files import read_state
from latentsync.weights.importing import import_network
from pipeline.inputs import build_tiny_model
from weights.published import AUDIO_WIDTH, as_version_1_0, tiny_syncnet, tiny_unet


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    torch.testing.assert_close(dict(first), dict(second), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("version", "resolution", "aligner"), [("1.5", 256, "legacy"), ("1.6", 512, "official")]
)
def test_a_folder_says_what_its_version_was_trained_with(
    published: Path, tmp_path: Path, version: str, resolution: int, aligner: str
):
    config = json.loads(
        (import_official(published, tmp_path / "m", version=version) / "config.json").read_text()
    )
    assert (config["resolution"], config["aligner"]) == (resolution, aligner)
    assert (config["mask"], config["num_frames"], config["fps"]) == ("mask", 16, 25.0)
    assert (config["audio_before"], config["audio_after"]) == (4, 6)
    assert config["training"]["imported_version"] == version
    scheduler = config["scheduler"]
    assert (scheduler["steps_offset"], scheduler["timestep_spacing"]) == (1, "leading")
    assert not scheduler["set_alpha_to_one"]
    assert scheduler["prediction_type"] == "epsilon"


def test_the_schedule_of_an_imported_model_is_the_official_one(published: Path, tmp_path: Path):
    import_official(published, tmp_path / "m", version="1.6")
    scheduler = LipSyncModel.from_pretrained(tmp_path / "m").process.scheduler
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == list(range(951, 0, -50))
    np.testing.assert_allclose(
        scheduler.alphas_cumprod[[951, 999]], [0.008155, 0.004660], atol=1e-6
    )


def test_import_export_import_changes_no_tensor(published: Path, tmp_path: Path):
    import_official(published, tmp_path / "one", version="1.5")
    export_model(tmp_path / "one", tmp_path / "back.pt")
    assert_same(read_state(tmp_path / "back.pt"), read_state(published))
    for name in ("whisper", "vae"):
        shutil.copytree(published.parent / name, tmp_path / name)
    import_official(tmp_path / "back.pt", tmp_path / "two", version="1.5")
    assert_same(
        load_network(UNet, tmp_path / "one" / "unet").state_dict(),
        load_network(UNet, tmp_path / "two" / "unet").state_dict(),
    )
    one, two = (LipSyncModel.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert one.format == two.format
    sound = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert one.audio_encoder(sound).shape == (25, 2, AUDIO_WIDTH)
    torch.testing.assert_close(one.audio_encoder(sound), two.audio_encoder(sound))


def test_names_of_1_0_tell_the_version(published: Path, tmp_path: Path):
    old = tmp_path / "old.pt"
    torch.save({"state_dict": as_version_1_0(read_state(published))}, old)
    near = {"whisper": published.parent / "whisper/tiny.pt", "vae": published.parent / "vae"}
    import_official(old, tmp_path / "m", **near)
    model = LipSyncModel.from_pretrained(tmp_path / "m")
    assert (model.format.resolution, model.format.aligner) == (256, "legacy")
    with pytest.raises(ValueError, match=r"version 1\.0 did, but version 1\.6 was asked"):
        import_official(old, tmp_path / "n", version="1.6", **near)
    assert not (tmp_path / "n").exists()


def test_a_resolution_that_is_not_the_versions_is_refused(published: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="trained at 256 px, asked for were 512 px"):
        import_official(published, tmp_path / "m", version="1.5", resolution=512)
    with pytest.raises(ValueError, match=r"1\.5 \(256 px\) or 1\.6 \(512 px\).*--version"):
        import_official(published, tmp_path / "m")
    with pytest.raises(ValueError, match=r"no version '2\.0'; there are 1\.0, 1\.5, 1\.6"):
        import_official(published, tmp_path / "m", version="2.0")


def test_weights_of_ones_own_training_need_resolution_and_aligner(published: Path, tmp_path: Path):
    import_official(published, tmp_path / "m", resolution=384, aligner="smooth")
    model = LipSyncModel.from_pretrained(tmp_path / "m")
    assert (model.format.resolution, model.format.aligner) == (384, "smooth")
    with pytest.raises(ValueError, match="no aligner is called 'dlib'; there are official"):
        import_official(published, tmp_path / "n", resolution=384, aligner="dlib")


def test_a_folder_named_for_its_version_tells_it(published: Path, tmp_path: Path):
    named = tmp_path / "models--ByteDance--LatentSync-1.6" / "snapshots"
    shutil.copytree(published.parent, named)
    import_official(named / "latentsync_unet.pt", tmp_path / "m")
    assert LipSyncModel.from_pretrained(tmp_path / "m").format.resolution == 512


def test_a_whisper_of_another_width_is_refused(published: Path, tmp_path: Path):
    export_official_unet(tiny_unet(cross_attention_dim=768), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match=r"768 wide .whisper-small.*384 wide"):
        import_official(
            tmp_path / "wide.pt",
            tmp_path / "m",
            version="1.5",
            whisper=published.parent / "whisper/tiny.pt",
            vae=published.parent / "vae",
        )


def test_a_missing_neighbour_is_named_with_its_place(published: Path, tmp_path: Path):
    shutil.copy(published, tmp_path / "unet.pt")
    with pytest.raises(FileNotFoundError, match=rf"tiny\.pt of OpenAI.* at {tmp_path}/whisper"):
        import_official(tmp_path / "unet.pt", tmp_path / "m", version="1.5")


def test_a_syncnet_given_as_unet_is_refused(published: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no official UNet.*it holds a SyncNet"):
        model_folder(published.parent / "stable_syncnet.pt", version="1.5", cache=tmp_path)


def test_a_file_is_imported_once_and_found_by_its_content(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    first = model_folder(published, version="1.5", cache=tmp_path / "cache")
    written = (first / "config.json").stat().st_mtime_ns
    shutil.copytree(published.parent, tmp_path / "moved")
    renamed = (tmp_path / "moved/latentsync_unet.pt").rename(tmp_path / "moved/other.pt")
    again = model_folder(renamed, version="1.5", cache=tmp_path / "cache")
    assert again == first
    assert (first / "config.json").stat().st_mtime_ns == written
    assert "was imported before" in caplog.text
    other = model_folder(published, version="1.6", cache=tmp_path / "cache")
    assert other != first
    export_official_unet(tiny_unet(motion="all"), renamed)
    assert model_folder(renamed, version="1.5", cache=tmp_path / "cache") not in (first, other)


def test_a_folder_is_itself_and_a_missing_file_is_told(tmp_path: Path):
    assert model_folder(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"there is no weight file nowhere\.pt"):
        model_folder("nowhere.pt")


def test_a_syncnet_folder_becomes_an_official_file(tmp_path: Path):
    net = tiny_syncnet()
    save_network(net, tmp_path / "syncnet")
    export_model(tmp_path / "syncnet", tmp_path / "stable_syncnet.pt")
    loaded = load_official_syncnet(tmp_path / "stable_syncnet.pt")
    assert_same(loaded.state_dict(), net.state_dict())
    with pytest.raises(ValueError, match=r"is a folder already: .* end .* in \.pt"):
        export_model(tmp_path / "syncnet", tmp_path / "copy")


@pytest.mark.parametrize("faces", ["drawn", "recorded", None])
def test_a_syncnet_stays_a_judge_of_its_faces_in_an_official_file(
    tmp_path: Path, faces: str | None
):
    net = tiny_syncnet()
    net.register_to_config(trained_on=faces)
    save_network(net, tmp_path / "syncnet")
    export_model(tmp_path / "syncnet", tmp_path / "stable_syncnet.pt")
    import_network(tmp_path / "stable_syncnet.pt", tmp_path / "back")
    assert load_syncnet(tmp_path / "back").config.trained_on == faces


def test_a_published_syncnet_is_a_judge_of_recorded_faces(tmp_path: Path):
    """Its file does not say so; it was trained on VoxCeleb2 and HDTF."""
    published = {"state_dict": tiny_syncnet().state_dict(), "global_step": 0}
    torch.save(published, tmp_path / "stable_syncnet.pt")
    import_network(tmp_path / "stable_syncnet.pt", tmp_path / "syncnet")
    assert load_syncnet(tmp_path / "syncnet").config.trained_on == "recorded"


def test_an_export_says_what_official_code_must_be_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    build_tiny_model().save_pretrained(tmp_path / "m")
    export_model(tmp_path / "m", tmp_path / "unet.pt")
    assert "predicts sample, official code epsilon" in caplog.text
    assert "80 wide" in caplog.text
    assert_same(read_state(tmp_path / "unet.pt"), build_tiny_model().unet.state_dict())
