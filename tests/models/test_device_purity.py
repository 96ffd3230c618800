"""Generation stays on the model's device: fake CUDA tensors cannot be mixed with CPU ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from einops import rearrange
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from transformers import WhisperConfig

from latentsync.diffusion import DDPM, FlowMatching, NoiseProcess, Solver
from latentsync.diffusion.ddpm import SOLVERS
from latentsync.diffusion.sampler import Sampler
from latentsync.models import (
    LatentCodec,
    LipSyncModel,
    MelAudioEncoder,
    ModelFormat,
    UNet,
    WhisperAudioEncoder,
    frame_tokens,
)
from models.tiny import build_model

SIDE, NUM_FRAMES = 32, 4
CONF = Path(__file__).parents[2] / "conf/sampler"
PRESETS = {path.stem: instantiate(OmegaConf.load(path)) for path in sorted(CONF.glob("*.yaml"))}
OTHERS = {
    f"{name}, interval": Sampler(name, 3, 1.5, guidance_interval=(0, 0.4), deepcache_interval=2)
    for name in SOLVERS
}
# A fake step costs as much as a real one of this size; three cover every kind of step.
SAMPLERS = {
    name: replace(sampler, num_steps=min(sampler.num_steps, 3))
    for name, sampler in {**PRESETS, **OTHERS}.items()
}


@pytest.fixture
def on_fake_cuda() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.fixture(autouse=True)
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solvers compare real timesteps, which are on the CPU as always."""
    make = Sampler.solver

    def real(sampler: Sampler, process: NoiseProcess) -> Solver:
        with unset_fake_temporarily():
            return make(sampler, process)

    monkeypatch.setattr(Sampler, "solver", real)


@pytest.fixture
def model(on_fake_cuda: None) -> LipSyncModel:
    # Schedules are on the CPU, wherever the networks are.
    with unset_fake_temporarily():
        scheduler = DDIMScheduler(prediction_type="sample", clip_sample=False)
    with torch.device("cuda"):
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 3,
            up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=[4, 4, 8],
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
        unet = UNet(
            block_out_channels=[8, 16],
            attention_levels=[False, True],
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=80,
            num_attention_heads=2,
            motion_num_attention_heads=2,
            motion="all",
        )
    return LipSyncModel(
        unet=unet.eval(),
        codec=LatentCodec(vae),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(scheduler),
        model_format=ModelFormat(resolution=SIDE, num_frames=NUM_FRAMES),
    )


def faces_and_audio() -> tuple[Tensor, Tensor]:
    with torch.device("cuda"):
        return torch.randn(2, NUM_FRAMES, 3, SIDE, SIDE), torch.randn(2, NUM_FRAMES, 8, 80)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_generating_stays_on_the_device(model: LipSyncModel, name: str) -> None:
    pixels, audio = faces_and_audio()
    if SAMPLERS[name].scheduler in FlowMatching.solvers:
        model.process = FlowMatching()
    drawn = model.generate(pixels, audio, sampler=SAMPLERS[name], generator=torch.Generator())
    assert drawn.device.type == "cuda"
    assert drawn.shape == pixels.shape


def test_kept_latents_stay_on_the_device(model: LipSyncModel) -> None:
    pixels, audio = faces_and_audio()
    noise = model.sample_noise(torch.Generator(), num_clips=2)
    sampler = PRESETS["dpmpp"]
    latents = model.generate_latents(
        *model.encode_faces(pixels), audio, sampler=sampler, noise=noise
    )
    assert latents.device.type == "cuda"
    assert model.finish(latents, pixels, sampler=sampler).device.type == "cuda"


@pytest.mark.parametrize("flow", [False, True], ids=["ddpm", "flow"])
@pytest.mark.parametrize("stored", [False, True], ids=["pixels", "latents"])
def test_denoising_stays_on_the_device(model: LipSyncModel, stored: bool, flow: bool) -> None:
    if flow:
        model.process = FlowMatching()
    pixels, audio = faces_and_audio()
    batch = {"audio": audio}
    with torch.device("cuda"):
        if stored:
            names = ("latents", "masked_latents", "reference_latents")
            batch |= {name: torch.randn(2, NUM_FRAMES, 4, SIDE // 4, SIDE // 4) for name in names}
        else:
            mask = torch.ones(2, NUM_FRAMES, 1, SIDE, SIDE)
            batch |= {"pixels": pixels, "reference": pixels, "mask": mask}
        denoised = model.denoise(batch, generator=torch.Generator())
    for tensor in (denoised.prediction, denoised.target, denoised.x0, denoised.signal):
        assert tensor.device.type == "cuda"
    assert denoised.pixels.device.type == "cuda"


def test_from_waveform_to_frames_on_the_device(model: LipSyncModel) -> None:
    """Sound and states are on the CPU, where files are read; the network is not."""
    config = WhisperConfig(
        d_model=80, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16
    )
    with torch.device("cuda"):
        model.audio_encoder = WhisperAudioEncoder.from_config(config)
    states = model.audio_encoder(torch.randn(16_000))
    assert states.device.type == "cpu"
    audio = frame_tokens(states, torch.arange(2 * NUM_FRAMES), before=2, after=2)
    pixels, _ = faces_and_audio()
    one = rearrange(pixels, "b f c h w -> 1 (b f) c h w")
    drawn = model.generate(
        one, audio[None].to(one.device), sampler=PRESETS["dpmpp_6"], generator=torch.Generator()
    )
    assert drawn.device.type == "cuda"
    assert drawn.shape == one.shape


@pytest.mark.parametrize("kind", ["mel", "whisper"])
def test_to_moves_every_network_and_casts_what_draws(kind: str) -> None:
    config = WhisperConfig(
        d_model=80, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16
    )
    encoder = MelAudioEncoder() if kind == "mel" else WhisperAudioEncoder.from_config(config)
    model = build_model(encoder)
    # On the meta device no tensor can be left behind unnoticed.
    model.to("meta", torch.float16)
    nets = {"unet": model.unet, "codec": model.codec.vae.net}
    if kind == "whisper":
        nets["audio_encoder"] = encoder.net.net
    for name, net in nets.items():
        assert {value.device.type for value in net.state_dict().values()} == {"meta"}
        wanted = torch.float32 if name == "audio_encoder" else torch.float16
        assert next(net.parameters()).dtype == wanted
