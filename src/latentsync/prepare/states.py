"""Clips => embeddings by another audio encoder, in addition to those a data set was prepared with.

features/<encoder>/<clip>.safetensors holds `audio`, like the features of the set; the encoder's
name is stored in every file and in the folder's record.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from latentsync.data.clips import AUDIO_ENCODER, Clip, states_metadata
from latentsync.data.manifest import read_manifest
from latentsync.data.stores import save_tensors
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.prepare.record import Record, locked


def encode_audio(data_dir: Path, encoder: AudioEncoder, *, progress: bool = False) -> Path:
    """Add an encoder's embeddings to a data set, or resume; returns the folder.

    Uses the AAC audio of the clips: the raw files are not needed any more.
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
            noted = states_metadata(name, encoder.rate)
            save_tensors({"audio": states}, _states_path(folder, clip), noted)
            record.add(clip.name, {"num_frames": clip.num_frames})
    return folder


def heard(clip: Clip) -> Float[Tensor, " t"]:
    """The audio of a clip, cut or padded to the length of its video: codecs append samples."""
    waveform = read_waveform(clip.path)
    length = round(clip.num_frames * SAMPLE_RATE / clip.fps)
    return functional.pad(waveform[:length], (0, max(0, length - len(waveform))))


def _states_path(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.name}.safetensors"
