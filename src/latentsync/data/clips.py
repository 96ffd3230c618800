"""Prepared clips: rows of a manifest, and the tensors that belong to them."""

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Self

from safetensors import SafetensorError

from latentsync.data.members import File, header_of
from latentsync.data.remote import RemoteSet
from latentsync.data.rows import Made
from latentsync.data.shards import ShardedSet

LATENTS_FOLDER = "latents"
FEATURES_FOLDER = "features"
AUDIO_ENCODER = "audio_encoder"  # safetensors metadata: the encoder of the audio states
STATES_RATE = "states_per_second"  # and their rate; if absent:
USUAL_RATE = 50.0


# Columns of a manifest that are no measures.
COLUMNS = ("clip", "features", "num_frames", "source", "start_frame", "resolution", "fps")

SPLIT = "split"  # a column: which of these a clip is for
TRAIN, VAL = "train", "val"

Measures = dict[str, float | str | None]

# Shape of MelAudioEncoder's states, which has no weights: two rows of 80 bands.
MEL_STATES = [2, 80]


@dataclass(frozen=True, slots=True)
class Clip:
    """One prepared clip; `start_frame` is its position in the source video at the model's frame
    rate.

    With a `store` its paths are in the store's local folder: call `bring` before reading.
    """

    path: Path
    features_path: Path
    latents_path: Path | None
    num_frames: int
    source: str
    start_frame: int
    resolution: int
    fps: float
    states_path: Path | None = None
    """Audio states of another encoder than in `features_path`, see `attach_states`."""
    store: RemoteSet | ShardedSet | None = field(default=None, repr=False, compare=False)
    measures: Measures = field(default_factory=dict, hash=False)
    """What the stages of preparation measured, by name; None: could not be measured."""

    @property
    def name(self) -> str:
        return self.path.stem

    def bring(self, path: Path | None = None) -> None:
        """Fetch one of its files, or all of them, to the local disk; does nothing without a
        `store`."""
        if self.store is None:
            return
        own = (self.path, self.features_path, self.latents_path, self.states_path)
        for each in own if path is None else (path,):
            if each is not None:
                self.store.bring(each)

    def place(self, path: Path) -> File:
        """Where one of its files can be read, fetched if need be."""
        return path if self.store is None else self.store.place(path)

    def as_row(self, folder: Path) -> Measures:
        """Its manifest line, with paths relative to `folder`; each measure is a column."""
        return {
            "clip": self.path.relative_to(folder).as_posix(),
            "features": self.features_path.relative_to(folder).as_posix(),
            "num_frames": self.num_frames,
            "source": self.source,
            "start_frame": self.start_frame,
            "resolution": self.resolution,
            "fps": self.fps,
            **self.measures,
        }

    @classmethod
    def from_row(cls, row: dict, folder: Path, store: RemoteSet | ShardedSet | None = None) -> Self:
        """The clip of a manifest line; columns of no other meaning are measures."""
        return cls(
            path=folder / row["clip"],
            features_path=folder / row["features"],
            latents_path=None,
            num_frames=int(row["num_frames"]),
            source=str(row["source"]),
            start_frame=int(row["start_frame"]),
            resolution=int(row["resolution"]),
            fps=float(row["fps"]),
            store=store,
            measures={name: value for name, value in row.items() if name not in COLUMNS},
        )


def attach_latents(clips: Sequence[Clip], latents: Path | str | bool) -> Sequence[Clip]:
    """The clips with `latents_path` set: `latents` names a folder, or True takes the only one there
    is."""
    store = clips[0].store
    parent = clips[0].path.parent.parent / LATENTS_FOLDER
    there = _names(parent) if store is None else store.folders(LATENTS_FOLDER)
    folder = _only_folder(parent, there) if latents is True else parent / str(latents)
    if store is not None:
        found: Container[str] = store.names(f"{LATENTS_FOLDER}/{folder.name}")
    else:
        folder = folder if latents is True else _named_folder(parent, str(latents))
        found = {path.name for path in folder.iterdir()}
    missing = _missing(clips, found)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(clips)} clips have no latents (first: {folder / missing[0]}); "
            f"go on with: python prepare.py stage=latents output={parent.parent} vae=..."
        )
    return _changed(clips, partial(_with_latents, folder))


@dataclass(frozen=True, slots=True)
class AudioStates:
    """The audio states a model needs: `encoder` is the encoder's `states_name`, `made_with` the
    overrides of prepare.py that select it."""

    encoder: str
    made_with: str = "audio_encoder=..."


def attach_states(clips: Sequence[Clip], wanted: AudioStates) -> Sequence[Clip]:
    """The clips with the states of an encoder; FileNotFoundError with the command to run if a set
    has none.

    States are in the features files, if the set was prepared with this encoder, or in a folder of
    its name next to them. Older sets do not record their encoder: only the shape of the states is
    compared, when training begins.
    """
    own = _own_encoder(clips)
    if own == wanted.encoder:
        return clips
    folder = clips[0].features_path.parent / wanted.encoder
    store = clips[0].store
    if store is not None:
        found: Container[str] = store.names(f"{FEATURES_FOLDER}/{folder.name}")
    else:
        found = {path.name for path in folder.glob("*.safetensors")}
    if not found and own is None:
        return clips
    missing = _missing(clips, found)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(clips)} clips of {folder.parent.parent} have no audio "
            f"states of {wanted.encoder}, which the model listens to (the set was prepared with "
            f"{own or 'another encoder'}). Add them: python prepare.py stage=features "
            f"output='{folder.parent.parent}' {wanted.made_with}"
        )
    return _changed(clips, partial(_with_states, folder))


def _tensors_of(stem: str) -> str:
    return f"{stem}.safetensors"


def _missing(clips: Sequence[Clip], found: Container[str]) -> list[str]:
    """Names of the clips' tensors that are not among the found ones."""
    if isinstance(clips, Made):
        stems = (PurePath(str(each)).stem for each in clips.rows.values("clip"))
    else:
        stems = (clip.name for clip in clips)
    return [name for name in map(_tensors_of, stems) if name not in found]


def _changed(clips: Sequence[Clip], change: Callable[[Clip], Clip]) -> Sequence[Clip]:
    return clips.changed(change) if isinstance(clips, Made) else [change(clip) for clip in clips]


def _with_latents(folder: Path, clip: Clip) -> Clip:
    return replace(clip, latents_path=folder / _tensors_of(clip.name))


def _with_states(folder: Path, clip: Clip) -> Clip:
    return replace(clip, states_path=folder / _tensors_of(clip.name))


def states_metadata(encoder: str, rate: float) -> dict[str, str]:
    """Metadata of audio states: their encoder, and their rate unless it is the usual one.

    A single entry if possible: safetensors writes several in arbitrary order, and prepared sets
    must be reproducible to the byte.
    """
    if rate == USUAL_RATE:
        return {AUDIO_ENCODER: encoder}
    return {AUDIO_ENCODER: encoder, STATES_RATE: repr(float(rate))}


def states_rate(clips: Sequence[Clip]) -> float:
    """Rate of the clips' audio states in Hz, from the first clip that can be read."""
    for clip in clips:
        path = clip.states_path or clip.features_path
        with suppress(OSError, SafetensorError):  # unreadable clips are skipped when they are read
            return float(header_of(clip.place(path))[0].get(STATES_RATE, USUAL_RATE))
    return USUAL_RATE


def _own_encoder(clips: Sequence[Clip]) -> str | None:
    """The encoder of the states in a set's features, from the first clip that can be read."""
    for clip in clips:
        with suppress(OSError, SafetensorError):  # unreadable clips are skipped when they are read
            metadata, shapes = header_of(clip.place(clip.features_path))
            named = metadata.get(AUDIO_ENCODER)
            return "mel" if named is None and shapes["audio"][1:] == MEL_STATES else named
    return None


def _names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.glob("*") if path.is_dir())


def _only_folder(parent: Path, names: Sequence[str]) -> Path:
    if len(names) != 1:
        raise ValueError(
            f"{parent} holds latents of {len(names)} VAEs {[*names]}: name one "
            "(with_latents=...), or make them with: python prepare.py stage=latents "
            f"output={parent.parent} vae=..."
        )
    return parent / names[0]


def _named_folder(parent: Path, name: str) -> Path:
    for folder in (parent / name, Path(name)):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no latents folder {name}, neither in {parent} nor as a path")
