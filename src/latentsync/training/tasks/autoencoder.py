"""Trains the VAE of the diffusion model."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from latentsync.batch import Batch
from latentsync.models.serialization import save_network
from latentsync.training.tasks.base import MakeOptimizer, MakeSchedule, Task

TONE_PATCH = 8  # pixels
NUM_MEASURED = 100  # batches used to measure the scale of latents


class AutoencoderTask(Task):
    """Reconstruction loss weighted towards the mouth, plus edge, tone and a small KL terms.

    With `decoder_only` the encoder, and so the meaning of latents, stays fixed: UNets trained on
    them keep working, and their output is decoded more sharply.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        painted_weight: float = 3.0,
        edge_weight: float = 1.0,
        tone_weight: float = 2.0,
        kl_weight: float = 3e-5,
        decoder_only: bool = False,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule)
        self.vae = vae.train()
        self.painted_weight = painted_weight
        self.edge_weight = edge_weight
        self.tone_weight = tone_weight
        self.kl_weight = kl_weight
        self.decoder_only = decoder_only
        if decoder_only:
            vae.requires_grad_(False)
            for part in (vae.decoder, vae.post_quant_conv):
                if part is not None:
                    part.requires_grad_(True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        pixels = rearrange(batch["pixels"], "b f c h w -> (b f) c h w")
        mask = rearrange(batch["mask"], "b f c h w -> (b f) c h w")
        posterior = self.vae.encode(pixels).latent_dist
        decoded = self.vae.decode(posterior.sample()).sample.float()
        weight = 1 + (1 - mask) * (self.painted_weight - 1)
        error = ((decoded - pixels).abs() * weight).mean()
        edges = edge_error(decoded - pixels, weight)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        tone = tone_error(decoded - pixels, weight)
        loss = error + self.edge_weight * edges + self.tone_weight * tone + self.kl_weight * kl
        parts = {"loss": loss, "pixels": error, "edges": edges, "tone": tone, "kl": kl}
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pixels = rearrange(batch["pixels"], "b f c h w -> (b f) c h w")
        painted = 1 - rearrange(batch["mask"], "b f c h w -> (b f) c h w")
        decoded = self.vae.decode(self.vae.encode(pixels).latent_dist.mode()).sample
        error = ((decoded.float() - pixels) / 2).square()
        inside = (error * painted).sum() / (painted.sum() * 3)
        self.log("val/psnr_inside", -10 * torch.log10(inside), prog_bar=True)
        self.log("val/psnr", -10 * torch.log10(error.mean()))
        self.log("val/chroma_r2", chroma_r2(decoded.float(), pixels))

    def export(self, folder: Path) -> None:
        """Write the VAE with the mean and standard deviation of its latents on training clips.

        A frozen encoder keeps its scale.
        """
        if not self.decoder_only:
            data = self.trainer.datamodule
            batches = map(data.unpack, islice(data.train_dataloader(), NUM_MEASURED))
            mean, deviation = measure_latents(self.vae, batches)
            self.vae.register_to_config(latents_mean=mean, latents_std=deviation)
        save_network(self.vae, folder)


def edge_error(
    difference: Float[Tensor, "n c h w"], weight: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean absolute error of vertical and horizontal first differences; penalises blur."""
    down = difference.diff(dim=-2).abs() * weight[..., 1:, :]
    across = difference.diff(dim=-1).abs() * weight[..., 1:]
    return down.mean() + across.mean()


def tone_error(
    difference: Float[Tensor, "n c h w"], weight: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean absolute error of 8x8 pixel means; penalises patches of the wrong colour.

    Per-pixel errors hide such a patch in the noise, and the network learns brightness long before
    colour.
    """
    tones = avg_pool2d(difference, TONE_PATCH).abs()
    return (tones * avg_pool2d(weight, TONE_PATCH)).mean()


def chroma_r2(
    decoded: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, ""]:
    """Coefficient of determination of the colour differences R-G and B-G; 1 is perfect."""
    chroma, wanted = (image[:, ::2] - image[:, 1:2] for image in (decoded, truth))
    spread = (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    return 1 - (chroma - wanted).square().mean() / spread


@torch.no_grad()
def measure_latents(
    vae: AutoencoderKL, batches: Iterable[Batch]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over the batches."""
    vae.eval()
    latents = torch.cat(
        [
            vae.encode(rearrange(batch["pixels"], "b f c h w -> (b f) c h w")).latent_dist.mode()
            for batch in batches
        ]
    )
    return latents.mean(dim=(0, 2, 3)).tolist(), latents.std(dim=(0, 2, 3)).tolist()
