"""Log images and videos to every logger that supports them."""

from pathlib import Path

from jaxtyping import Float, UInt8
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor


def log_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    """Log a plot at the current step."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, trainer.global_step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [figure], step=trainer.global_step)


def log_video(
    trainer: Trainer,
    name: str,
    path: Path,
    *,
    strip: UInt8[ndarray, "h w 3"],
    sound: Float[Tensor, " t"] | None,
    sample_rate: int,
) -> None:
    """Log a video file; TensorBoard, which cannot play it, gets a strip of frames and the sound."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            step = trainer.global_step
            logger.experiment.add_image(name, strip, step, dataformats="HWC")
            if sound is not None:
                logger.experiment.add_audio(name, sound[None], step, sample_rate=sample_rate)
        elif isinstance(logger, WandbLogger):
            logger.log_video(name, [str(path)], step=trainer.global_step, format=["mp4"])
