"""Choose dtype and memory format: what is fast on which device."""

import logging

import torch

from latentsync.models.lipsync import LipSyncModel
from latentsync.models.unet import UNet
from latentsync.models.unet_layers import ClipResnetBlock, SpatialTransformer

log = logging.getLogger(__name__)


def make_ready(
    model: LipSyncModel,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    compile_unet: bool = False,
) -> LipSyncModel:
    """Move a model to a device and make it fast there, in place.

    `dtype`: of UNet and VAE; None means `best_dtype`. The noise schedule stays in the dtype of the
    noise, float32. In float32 the memory format is unchanged, which reproduces the official code to
    the last digits; in half precision it is channels-last, except for the UNet on a CPU, where that
    is 10 % slower.
    `compile_unet` compiles the UNet's layers with torch, which takes minutes in the first chunk and
    needs a C++ compiler on a CPU.
    """
    device = torch.device(device)
    dtype = best_dtype(device) if dtype is None else dtype
    model.to(device, dtype)
    plain, last = torch.contiguous_format, torch.channels_last
    vae = plain if dtype == torch.float32 else last
    model.codec.vae.net.to(memory_format=vae)
    model.unet.to(memory_format=plain if device.type == "cpu" else vae)
    if compile_unet:
        compile_layers(model.unet)
    log.info("the model runs on %s in %s", device, str(dtype).removeprefix("torch."))
    return model


def best_dtype(device: torch.device | str) -> torch.dtype:
    """The fastest dtype of a device that is exact enough to generate faces.

    bfloat16 on GPUs that support it (Ampere and later) and on CPUs with instructions for it;
    float16 on older GPUs with half precision units; else float32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16
        return torch.float16 if major == 7 else torch.float32
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if has_bfloat16_units() else torch.float32


def has_bfloat16_units() -> bool:
    """Whether this CPU has bfloat16 instructions; torch emulates them slowly otherwise."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compile_layers(unet: UNet) -> None:
    """Compile the layers one by one, in place: repeated layers are compiled once, and the last
    residual block, which `DeepCache` hooks, is not compiled."""
    last = unet.up_blocks[-1].resnets[-1]
    for module in unet.modules():
        if isinstance(module, ClipResnetBlock | SpatialTransformer) and module is not last:
            module.compile(dynamic=False)
