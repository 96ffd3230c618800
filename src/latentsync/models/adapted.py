"""Models adapted to one speaker: another VAE, and whose recording it was."""

from pathlib import Path

from latentsync.models.codec import LatentCodec
from latentsync.models.lipsync import LipSyncModel

ADAPTED_TO = "adapted_to"


def with_vae(
    folder: Path | str, *, vae: Path | str, adapted_to: dict[str, object] | None = None
) -> LipSyncModel:
    """A trained model with another VAE, on whose latents its UNet is to be trained.

    `adapted_to` describes the recording of the one speaker it is trained on; it is stored in the
    model's folder.
    """
    model = LipSyncModel.from_pretrained(folder)
    adapted = {} if adapted_to is None else {ADAPTED_TO: dict(adapted_to)}
    return LipSyncModel(
        unet=model.unet,
        codec=LatentCodec.from_pretrained(vae),
        audio_encoder=model.audio_encoder,
        process=model.process,
        model_format=model.format,
        training={**model.training, **adapted},
    )


def recording_of(model: LipSyncModel) -> dict[str, str] | None:
    """The recording of the one speaker that a model was adapted to, by name and hash."""
    recording = model.training.get(ADAPTED_TO)
    if not isinstance(recording, dict):
        return None
    return {str(name): str(value) for name, value in recording.items()}
