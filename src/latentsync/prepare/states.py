"""Clips => audio states of another encoder, beside those that a set was prepared with.

features/<encoder>/<clip>.safetensors holds `audio`, as the features of the set do; the encoder's
name is noted in every file and in the folder's record.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from latentsync.data.clips import AUDIO_ENCODER, Clip, read_manifest, states_metadata
from latentsync.files import publish
from latentsync.media.audio import read_waveform
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.prepare.record import Record, locked
from latentsync.prepare.stage import SAMPLE_RATE


def encode_audio(data_dir: Path, encoder: AudioEncoder, *, progress: bool = False) -> Path:
    """Add an encoder's states to a data set, or go on where it was interrupted; returns the folder.

    What is heard is the sound of the clips, coded as AAC: the raw files need not be there any more.
    """
    clips = read_manifest(data_dir)
    name = encoder.states_name
    folder = clips[0].features_path.parent / name
    with locked(folder):
        record = Record.open(folder, {AUDIO_ENCODER: name})
        todo = [
            clip
            for clip in clips
            if clip.name not in record.rows or not _states_path(folder, clip).is_file()
        ]
        for clip in tqdm(
            todo,
            total=len(clips),
            initial=len(clips) - len(todo),
            desc="features",
            unit="clip",
            disable=not progress,
        ):
            with torch.no_grad():
                states = encoder(heard(clip)).half().cpu().contiguous()
            with publish(_states_path(folder, clip)) as partial:
                save_file({"audio": states}, partial, metadata=states_metadata(name, encoder.rate))
            record.add(clip.name, {"num_frames": clip.num_frames})
    return folder


def heard(clip: Clip) -> Float[Tensor, " t"]:
    """The sound of a clip, exactly as long as its picture: coders append to it."""
    waveform = read_waveform(clip.path)
    length = round(clip.num_frames * SAMPLE_RATE / clip.fps)
    return functional.pad(waveform[:length], (0, max(0, length - len(waveform))))


def _states_path(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.name}.safetensors"
