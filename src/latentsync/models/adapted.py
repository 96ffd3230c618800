"""Models adapted to one speaker: other parts, and whose recording it was."""

from dataclasses import replace
from pathlib import Path

import torch

from latentsync.models.audio.encoders import AudioEncoder
from latentsync.models.codec import LatentCodec
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.unet import UNet

ADAPTED_TO = "adapted_to"


def with_vae(
    folder: Path | str,
    *,
    vae: Path | str,
    adapted_to: dict[str, object] | None = None,
    keep_motion: bool = True,
    reference_mouth: bool | None = None,
    audio_encoder: AudioEncoder | None = None,
) -> LipSyncModel:
    """A trained model with another VAE, on whose latents its UNet is to be trained.

    `adapted_to` describes the recording of the one speaker it is trained on; it is stored in the
    model's folder. Without `keep_motion` the UNet loses its motion modules. `reference_mouth`
    replaces that of the model's format, `audio_encoder` the encoder; ValueError if its states have
    another shape or rate.
    """
    model = LipSyncModel.from_pretrained(folder)
    encoder = model.audio_encoder
    if audio_encoder is not None:
        _check_alike(audio_encoder, encoder, folder)
        encoder = audio_encoder
    form = model.format
    if reference_mouth is not None:
        form = replace(form, reference_mouth=reference_mouth)
    adapted = {} if adapted_to is None else {ADAPTED_TO: dict(adapted_to)}
    return LipSyncModel(
        unet=model.unet if keep_motion else without_motion(model.unet),
        codec=LatentCodec.from_pretrained(vae),
        audio_encoder=encoder,
        process=model.process,
        model_format=form,
        training={**model.training, **adapted},
    )


def _check_alike(encoder: AudioEncoder, known: AudioEncoder, folder: Path | str) -> None:
    second = torch.zeros(16_000)
    shapes = [tuple(each(second).shape) for each in (encoder, known)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{encoder.name} makes states of {shapes[0]} of a second of sound, but the UNet of "
            f"{folder} takes {shapes[1]}: choose an encoder like its own, {known.name}"
        )


def without_motion(unet: UNet) -> UNet:
    """The UNet without its motion modules: frames of a clip then share nothing but statistics of
    norms."""
    plain = UNet.from_config({**unet.config, "motion": "none"})
    plain.load_state_dict(
        {name: value for name, value in unet.state_dict().items() if ".motion_" not in name}
    )
    return plain


def recording_of(model: LipSyncModel) -> dict[str, str] | None:
    """The recording of the one speaker that a model was adapted to, by name and hash."""
    recording = model.training.get(ADAPTED_TO)
    if not isinstance(recording, dict):
        return None
    return {str(name): str(value) for name, value in recording.items()}
