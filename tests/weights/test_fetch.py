"""Published files are fetched from a hub; without one the user is told which files are needed
where."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from latentsync.weights import model_folder
from latentsync.weights.fetch import fetch

REPO = "ByteDance/LatentSync-1.6"
PATHS = {
    f"/{REPO}/resolve/main/latentsync_unet.pt": b"unet" * 5000,
    f"/{REPO}/resolve/main/whisper/tiny.pt": b"whisper",
    "/stabilityai/sd-vae-ft-mse/resolve/main/config.json": b"{}",
    "/stabilityai/sd-vae-ft-mse/resolve/main/diffusion_pytorch_model.safetensors": b"vae",
}


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that a download uses."""

    asked: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        Hub.asked.append(self.path)
        self._answer(PATHS[self.path])

    def _answer(self, body: bytes) -> None:
        content = PATHS[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_come_into_the_hubs_cache_once(hub: str, tmp_path: Path):
    files = fetch(f"hf:{REPO}", cache=tmp_path / "ours", endpoint=hub)
    for path, url in zip((files.unet, files.whisper, files.vae), list(PATHS)[:2] + list(PATHS)[3:],
                         strict=True):  # fmt: skip
        assert path.is_relative_to(tmp_path / "hub")
        assert path.read_bytes() == PATHS[url]
    assert files.vae.with_name("config.json").read_bytes() == b"{}"
    assert sorted(Hub.asked) == sorted(PATHS)
    assert fetch(f"hf:{REPO}", cache=tmp_path / "ours", endpoint=hub) == files
    assert sorted(Hub.asked) == sorted(PATHS)


def test_without_a_network_every_file_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    by_hand = tmp_path / "published" / REPO
    with pytest.raises(FileNotFoundError) as raised:
        fetch(f"hf:{REPO}", cache=tmp_path)
    names = ("latentsync_unet.pt", "whisper/tiny.pt", "vae/config.json")
    for name in (*names, "vae/diffusion_pytorch_model.safetensors"):
        assert f"{by_hand / name} (from https://huggingface.co/" in str(raised.value)
    assert f"{REPO}/resolve/main/latentsync_unet.pt)" in str(raised.value)

    for name in names:
        (by_hand / name).parent.mkdir(parents=True, exist_ok=True)
        (by_hand / name).write_bytes(b"x")
    with pytest.raises(FileNotFoundError) as raised:
        fetch(f"hf:{REPO}", cache=tmp_path)
    assert "latentsync_unet.pt" not in str(raised.value)
    (by_hand / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    files = fetch(f"hf:{REPO}", cache=tmp_path)
    assert files.unet == by_hand / "latentsync_unet.pt"


def test_files_put_by_hand_make_a_model(published: Path, tmp_path: Path):
    import shutil

    from latentsync.models import LipSyncModel

    shutil.copytree(published.parent, tmp_path / "published" / REPO)
    folder = model_folder(f"hf:{REPO}", cache=tmp_path)
    assert LipSyncModel.from_pretrained(folder).format.resolution == 512


@pytest.mark.parametrize("wrong", ["ByteDance/LatentSync-1.6", "hf:LatentSync", "hf:a/b/c"])
def test_what_is_no_hub_name_is_refused(wrong: str):
    with pytest.raises(ValueError, match=r"is no hf:owner/name"):
        fetch(wrong)
