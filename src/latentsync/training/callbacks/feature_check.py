"""Check before the first step that the clips fit the model."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from latentsync.data import ClipDataset
from latentsync.training.tasks.diffusion import DiffusionTask


class CheckFeatures(Callback):
    """Raises ValueError with both sides if audio features or latents do not fit the UNet."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dataset = getattr(trainer.datamodule, "train_set", None)
        if isinstance(pl_module, DiffusionTask) and isinstance(dataset, ClipDataset):
            check_features(pl_module, dataset)


def check_features(task: DiffusionTask, dataset: ClipDataset) -> None:
    """Compare the first item of the data set with the model's networks."""
    item = dataset[0]
    first = dataset.clips[0]
    folder = (first.states_path or first.features_path).parent
    config = task.unet.config
    num_tokens, width = item["audio"].shape[-2:]
    if config.audio_projection is not None:
        wanted = config.audio_projection["tokens_in"], config.audio_projection["dim_in"]
    else:
        wanted = num_tokens, config.cross_attention_dim
    if (num_tokens, width) != wanted:
        raise ValueError(
            f"the features in {folder} are {num_tokens} tokens of {width} numbers a frame, the "
            f"UNet takes {wanted[0]} of {wanted[1]}: they are of another audio encoder. Add "
            "those of the model's (python prepare.py stage=features output=SET audio_encoder=...), "
            "or train the model that goes with these"
        )
    if "latents" in item and item["latents"].shape[1] != task.model.codec.num_channels:
        raise ValueError(
            f"the latents in {dataset.clips[0].latents_path} have {item['latents'].shape[1]} "
            f"channels, the model's VAE makes {task.model.codec.num_channels}: make them with "
            "that VAE (prepare.py stage=latents vae=...)"
        )
