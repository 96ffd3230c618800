"""TREPA with the published layout of VideoMAE-v2, against the same computed by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import VideoMAEConfig, VideoMAEModel

from latentsync.losses.trepa import TrepaLoss
from latentsync.losses.video_mae import VideoBackbone, load_video_mae, load_video_mae_v2
from losses.guesses import guess
from losses.published import WIDTH, embed_by_hand, published_state

NUM_FRAMES = 4


@pytest.fixture
def state(generator) -> dict[str, torch.Tensor]:
    return published_state(generator)


@pytest.fixture
def backbone(state, tmp_path) -> VideoBackbone:
    path = tmp_path / "published.pth"
    torch.save({"module": state}, path)
    return load_video_mae_v2(path, dtype="float32", num_frames=NUM_FRAMES)


@pytest.fixture
def clips(generator) -> torch.Tensor:
    return torch.rand(2, NUM_FRAMES, 3, 224, 224, generator=generator)


def pair(truth: torch.Tensor, predicted: torch.Tensor):
    """The loss's two arguments for pixels "b f 3 h w"."""
    denoised = guess(truth.permute(0, 2, 1, 3, 4), x0=predicted.permute(0, 2, 1, 3, 4))
    return denoised, {"pixels": truth}


def test_the_backbone_computes_what_the_published_names_say(backbone, state, clips):
    with torch.no_grad():
        torch.testing.assert_close(backbone(clips), embed_by_hand(state, clips))


@pytest.mark.parametrize("wrap", [None, "model", "module"])
def test_every_way_a_file_is_wrapped_is_read(state, clips, tmp_path, wrap):
    torch.save(state if wrap is None else {wrap: state}, tmp_path / "file.pth")
    net = load_video_mae_v2(tmp_path / "file.pth", dtype="float32", num_frames=NUM_FRAMES)
    with torch.no_grad():
        torch.testing.assert_close(net(clips), embed_by_hand(state, clips))


def test_identical_clips_cost_nothing(backbone, generator):
    truth = torch.rand(2, NUM_FRAMES, 3, 32, 32, generator=generator) * 2 - 1
    assert TrepaLoss(backbone)(*pair(truth, truth.clone())).item() == 0


def test_the_loss_equals_its_formula(backbone, state, generator):
    truth, predicted = torch.randn(2, 2, NUM_FRAMES, 3, 32, 32, generator=generator)
    embedded = []
    for pixels in (predicted, truth):
        frames = functional.interpolate(pixels.flatten(0, 1), size=(224, 224), mode="bicubic")
        clips = ((frames + 1) / 2).clip(0, 1).unflatten(0, (2, NUM_FRAMES))
        vectors = embed_by_hand(state, clips)
        embedded.append(vectors / vectors.square().sum(dim=1, keepdim=True).sqrt())
    expected = (embedded[0] - embedded[1]).square().sum() / (2 * WIDTH)
    torch.testing.assert_close(TrepaLoss(backbone)(*pair(truth, predicted)), expected)


def test_embeddings_of_one_direction_cost_nothing_and_opposite_ones_4_over_their_width():
    class Means(VideoBackbone):
        """Eight values that increase with the brightness of the clip, from -1 to 1."""

        image_size, dtype = 32, torch.float32

        def __init__(self) -> None:
            nn.Module.__init__(self)

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return (2 * clips.mean(dim=(1, 2, 3, 4)) - 1)[:, None].expand(-1, 8)

    loss = TrepaLoss(Means())
    bright = torch.full((1, NUM_FRAMES, 3, 32, 32), 0.8)
    assert loss(*pair(bright, bright / 4)).item() == pytest.approx(0, abs=1e-10)
    assert loss(*pair(bright, -bright)).item() == pytest.approx(4 / 8)


def test_gradients_reach_the_prediction_and_checkpointing_changes_none(backbone, generator):
    truth, predicted = torch.randn(2, 1, NUM_FRAMES, 3, 32, 32, generator=generator)
    gradients = []
    for checkpointing in (False, True):
        backbone.gradient_checkpointing = checkpointing
        given = predicted.clone().requires_grad_()
        TrepaLoss(backbone)(*pair(truth, given)).backward()
        gradients.append(given.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)
    assert all(value.grad is None for value in backbone.parameters())


def test_float16_is_near_float32(state, tmp_path, generator):
    torch.save({"module": state}, tmp_path / "file.pth")
    truth, predicted = torch.randn(2, 1, NUM_FRAMES, 3, 32, 32, generator=generator)
    values = [
        TrepaLoss(load_video_mae_v2(tmp_path / "file.pth", dtype=dtype, num_frames=NUM_FRAMES))(
            *pair(truth, predicted)
        )
        for dtype in ("float32", "float16")
    ]
    assert values[1].dtype == torch.float32
    torch.testing.assert_close(values[1], values[0], rtol=0.05, atol=0)


def test_a_light_backbone_is_transformers_own(tmp_path, clips):
    config = VideoMAEConfig(
        image_size=224, patch_size=112, num_frames=NUM_FRAMES, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    net = VideoMAEModel(config).eval()
    net.save_pretrained(tmp_path)
    light = load_video_mae(tmp_path)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        tokens = net((clips - mean) / deviation).last_hidden_state
        torch.testing.assert_close(light(clips), tokens.mean(dim=1))


def test_missing_and_wrong_files_say_what_to_download(tmp_path, state):
    with pytest.raises(ValueError, match=r"download vit_g_hybrid_pt_1200e_ssv2_ft\.pth .* videoma"):
        load_video_mae_v2(None)
    with pytest.raises(FileNotFoundError, match=r"no VideoMAE-v2-g at .*file\.pth: download vit_g"):
        load_video_mae_v2(tmp_path / "file.pth")
    (tmp_path / "file.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="damaged or no weights file"):
        load_video_mae_v2(tmp_path / "file.pth")
    torch.save({"state_dict": {"conv_in.weight": torch.zeros(1)}}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="holds no VideoMAE-v2"):
        load_video_mae_v2(tmp_path / "file.pth")
    state.pop("fc_norm.weight")
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"no fine-tuned, mean-pooled VideoMAE-v2.*norm\.weight"):
        load_video_mae_v2(tmp_path / "file.pth")
    with pytest.raises(FileNotFoundError, match=r"download MCG-NJU/videomae-base"):
        load_video_mae(tmp_path / "nowhere")


def test_another_number_of_frames_is_refused(backbone, clips):
    with pytest.raises(ValueError, match=r"sees 4 frames at once, the clips have 2"):
        backbone(clips[:, :2])
