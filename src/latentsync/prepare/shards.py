"""Clips and their tensors => tar archives, and an index: few large files instead of many."""

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from latentsync.data.clips import FEATURES_FOLDER, LATENTS_FOLDER, Clip
from latentsync.data.listed import PACKETS_FORMAT, packed
from latentsync.data.manifest import listed_clips, manifest_of
from latentsync.data.shards import (
    ARCHIVES,
    FOLDERS,
    INDEX_NAME,
    SHARDS_FOLDER,
    index_tensors,
    packets_name,
)
from latentsync.data.stores import save_tensors
from latentsync.files import publish
from latentsync.media.container import UNREADABLE
from latentsync.media.packets import packets_of
from latentsync.prepare.record import Record, locked

ROW = "json"  # suffix of the member that holds a clip's row of the manifest
LIST = "packets.safetensors"  # of the member that lists a clip's packets
CLIPS_FOLDER = "clips"

Members = dict[str, str]  # names in the archive => files relative to the set

log = logging.getLogger(__name__)


def write_shards(data_dir: Path, *, megabytes: float = 256, progress: bool = False) -> Path:
    """Write all files of a prepared set into archives, or go on with it; returns their folder.

    In the order of the manifest, as many clips as fit into `megabytes`. Members of a clip have its
    name up to the first point and differ in what follows, as webdataset expects: NAME.mp4,
    NAME.features.safetensors, NAME.latents.VAE.safetensors, NAME.packets.safetensors (where the
    packets of NAME.mp4 are, see `packets_of`), NAME.json (its row). An archive is made again only
    if its clips or one of their files have changed, or an earlier version made it without lists of
    packets. Files of the set stay as they are.
    """
    if not megabytes > 0:
        raise ValueError(f"shard_megabytes={megabytes:g} must be positive")
    manifest = manifest_of(data_dir)
    folder, clips = manifest.parent, listed_clips(manifest)
    target = folder / SHARDS_FOLDER
    folders = folders_of(folder)
    with locked(target):
        record = Record.open(target, {"format": 1})
        parts = list(divided(clips, folder, folders, max_bytes=megabytes * 1e6))
        places: dict[str, tuple[int, int, int]] = {}
        names = [f"shard-{number:06d}.tar" for number in range(len(parts))]
        numbered = enumerate(zip(names, parts, strict=True))
        for number, (name, part) in tqdm(
            numbered, total=len(parts), desc="shards", disable=not progress
        ):
            files = [version_of(folder, each, folders) for each in part]
            version = {"files": files, "packets": PACKETS_FORMAT}
            noted = record.rows.get(name)
            if not (target / name).is_file() or noted != {"item": name, **version}:
                write_shard(target / name, part, folder, folders)
                record.add(name, version)
            places |= places_of(target / name, number, folders)
        lists = {ARCHIVES: json.dumps(names), FOLDERS: json.dumps(folders)}
        save_tensors(index_tensors(places), target / INDEX_NAME, lists)
        for stale in record.rows.keys() - set(names):
            (target / stale).unlink(missing_ok=True)
    return target


def folders_of(folder: Path) -> list[str]:
    """The folders of a set that hold files of clips, one file a clip."""
    more = [
        each.relative_to(folder).as_posix()
        for parent in (FEATURES_FOLDER, LATENTS_FOLDER)
        for each in sorted((folder / parent).glob("*/"))
    ]
    return [CLIPS_FOLDER, FEATURES_FOLDER, *more]


def members_of(clip: Clip, folders: Sequence[str]) -> Members:
    """The members of a clip, and the files of the set that they hold."""
    if "." in clip.name:
        raise ValueError(f"{clip.path}: a clip with a point in its name cannot be in an archive")
    found = {f"{clip.name}.mp4": f"{CLIPS_FOLDER}/{clip.name}.mp4"}
    for folder in folders[1:]:
        kind = folder.replace("/", ".")
        found[f"{clip.name}.{kind}.safetensors"] = f"{folder}/{clip.name}.safetensors"
    return found


def divided(
    clips: Sequence[Clip], folder: Path, folders: Sequence[str], *, max_bytes: float
) -> Iterator[list[Clip]]:
    """Consecutive clips whose files fit into an archive, one clip at least."""
    part: list[Clip] = []
    filled = 0
    for clip in clips:
        if clip.path.parent != folder / CLIPS_FOLDER:
            raise ValueError(f"{clip.path} is no clip of {folder}: give the set that it belongs to")
        size = sum(each[1] for each in version_of(folder, clip, folders))
        if part and filled + size > max_bytes:
            yield part
            part, filled = [], 0
        part.append(clip)
        filled += size
    yield part


def version_of(folder: Path, clip: Clip, folders: Sequence[str]) -> list[list]:
    """Name, size and time of each file of a clip; those that are missing are left out, but clip
    and features must be there."""
    found = []
    for file in members_of(clip, folders).values():
        path = folder / file
        if path.is_file():
            status = path.stat()
            found.append([file, status.st_size, status.st_mtime_ns])
        elif file.startswith((f"{CLIPS_FOLDER}/", f"{FEATURES_FOLDER}/{clip.name}.")):
            raise FileNotFoundError(f"{path} does not exist: prepare this data set again")
    return found


def write_shard(path: Path, clips: Sequence[Clip], folder: Path, folders: Sequence[str]) -> None:
    """Write one archive, the same bytes for the same files."""
    with publish(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            for name, file in members_of(clip, folders).items():
                if (folder / file).is_file():
                    with (folder / file).open("rb") as opened:
                        tar.addfile(_plain(name, (folder / file).stat().st_size), opened)
            for kind, content in _further_members(clip, folder):
                tar.addfile(_plain(f"{clip.name}.{kind}", len(content)), io.BytesIO(content))


def _further_members(clip: Clip, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What an archive holds of a clip that is no file of the set, by the end of its name."""
    with suppress(*UNREADABLE):  # the loader will tell
        packets = packets_of(clip.path)
        if packets is not None:
            yield LIST, packed(packets)
    yield ROW, json.dumps(clip.as_row(folder)).encode()


def places_of(path: Path, number: int, folders: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """For each file of the set in an archive, where it is."""
    kinds = {f"{each.replace('/', '.')}.safetensors": each for each in folders[1:]}
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name, _, kind = member.name.partition(".")
            if kind == ROW:
                continue
            if kind == "mp4":
                file = f"{CLIPS_FOLDER}/{name}.mp4"
            else:
                file = packets_name(name) if kind == LIST else f"{kinds[kind]}/{name}.safetensors"
            found[file] = (number, member.offset_data, member.size)
    return found


def _plain(name: str, size: int) -> tarfile.TarInfo:
    """A member without owner and time."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info
