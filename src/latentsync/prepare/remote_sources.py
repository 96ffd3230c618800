"""Recordings in a store: listed by fsspec, fetched whole to be prepared, and then deleted here."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from time import perf_counter

from fsspec.implementations.local import LocalFileSystem

from latentsync.data.remote import (
    SEPARATOR,
    StoreUnreachable,
    ask,
    brief,
    is_remote,
    open_store,
    refusals,
)
from latentsync.files import aside
from latentsync.prepare.stage import Dropped, Outcome, Source, Stage, run_stages

FETCH = "fetch"  # the stage of recordings that could not be fetched
# What stores call the state of a file, the surest first.
STAMPS = ("ETag", "etag", "e_tag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")
MORE_STAMPS = ("modified", "created")


@dataclass(frozen=True, slots=True)
class RemoteSource(Source):
    """A raw file in a store. Its `path` is no file of this machine; `version` changes with it."""

    url: str = ""
    version: str = ""

    def recorded(self) -> dict:
        noted = Source.recorded(self)
        return {**noted, "path": self.url} if noted else {}


def resolved_input(given: Path | str) -> Path | str:
    """An input as it is recorded: an absolute path, or a URL."""
    if not is_remote(given):
        return Path(given).resolve()
    return str(given).rstrip("/")


def list_url(url: str, output_dir: Path) -> list[tuple[str, str, str]]:
    """Name, URL and version of every file under a folder of a store, except hidden ones, sorted.

    FileNotFoundError if there is no such folder, or it is empty; PermissionError, ValueError (the
    protocol needs a package), StoreUnreachable.
    """
    check_beside(url, output_dir)
    store, root = open_store(url)
    root = root.rstrip("/")
    with answering(url):
        found: Mapping[str, Mapping] = store.find(root, detail=True)
        if store.isfile(root):
            raise ValueError(f"{url} is a file: input= is a folder of videos, or a list here")
        if not found and not store.isdir(root):
            raise FileNotFoundError(f"{url} is no folder: input= is a folder of videos")
    listed = []
    for place, status in found.items():
        name = name_under(place, root)
        is_hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        if name and not is_hidden and status.get("type", "file") == "file":
            listed.append((name, f"{url}/{name}", version_of(status)))
    if not listed:
        raise FileNotFoundError(f"{url} holds no file: input= is a folder of videos")
    return sorted(listed)


def name_under(place: str, root: str) -> str:
    """The path of a file relative to the folder `root`; either may begin with the protocol, as
    obstore takes and lists them."""
    place, root = (each.rpartition(SEPARATOR)[2] for each in (place, root))
    return place.removeprefix(root).lstrip("/")


def check_beside(url: str, output_dir: Path) -> None:
    """ValueError if the folder is on this machine and holds the output, or is in it."""
    store, root = open_store(url)
    # Also of one that keeps copies of a store (simplecache::file://).
    if not isinstance(getattr(store, "fs", store), LocalFileSystem):
        return
    place = Path(root).resolve()
    if output_dir.is_relative_to(place):
        raise ValueError(f"output {output_dir} lies in the input {url}: raw files stay as is")
    if place.is_relative_to(output_dir):
        raise ValueError(f"{url} leads into the output {output_dir}: input= holds raw files only")


def version_of(status: Mapping) -> str:
    """Size and a hash of what a store says of the state of a file, without further blanks."""
    stamp = next((status[name] for name in (*STAMPS, *MORE_STAMPS) if status.get(name)), "")
    digest = hashlib.sha256(str(stamp).encode()).hexdigest()[:16]
    return f"{int(status.get('size') or 0)} {digest}"


def source_of(row: Mapping, given: str, name: str, output_dir: Path) -> Source:
    """The source of a recorded row of an input that may be a URL."""
    source = Source.from_record(row, Path(given), name, output_dir)
    if not is_remote(given):
        return source
    url = f"{given}/{name}"
    return RemoteSource(Path(url), name, source.key, output_dir, source.listed, url)


def run_source(stages: Sequence[Stage], source: Source) -> Outcome:
    """`run_stages`; a recording in a store is fetched first, and named by its URL in what comes of
    it. One that is not there, or must not be read, is dropped."""
    if not isinstance(source, RemoteSource):
        return run_stages(stages, source)
    begin = perf_counter()
    try:
        with fetched(source) as here:
            outcome = run_stages(stages, here)
    except Unfetched as error:
        dropped = Dropped(source.name, FETCH, str(error))
        return Outcome(source, dropped=[dropped], work_seconds=round(perf_counter() - begin, 3))
    return replace(
        outcome,
        source=source,
        clips=[replace(clip, source=source.url) for clip in outcome.clips],
        dropped=[
            replace(each, reason=each.reason.replace(str(here.path), source.url))
            for each in outcome.dropped
        ],
        work_seconds=round(perf_counter() - begin, 3),
    )


class Unfetched(Exception):
    """A recording cannot be had, though its store answers; says why."""


@contextmanager
def fetched(source: RemoteSource) -> Iterator[Source]:
    """The source as a file of this machine until the block ends.

    It lies in the output folder; a later run removes what a killed one left. OSError if the disk
    has no room, StoreUnreachable if the store fails to answer.
    """
    path = aside(source.output_dir / f"{source.key}{Path(source.name).suffix}")
    try:
        _fetch(source.url, path)
        yield Source(path, source.name, source.key, source.output_dir, source.listed)
    finally:
        path.unlink(missing_ok=True)


def _fetch(url: str, path: Path) -> None:
    store, place = open_store(url)
    try:
        ask(
            lambda: store.get_file(place, str(path)),
            f"{url} could not be fetched",
            advice="the same command goes on",
            passed=(FileNotFoundError, PermissionError),
        )
    except FileNotFoundError as error:
        raise Unfetched("it vanished before it was read") from error
    except PermissionError as error:
        raise Unfetched(f"it must not be read: {brief(error)}") from error


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Errors of a store that lists a folder, with its address."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url} is no folder: input= is a folder of videos") from error
    except PermissionError as error:
        raise PermissionError(f"{url} must not be listed: {brief(error)}") from error
    except refusals() as error:
        raise StoreUnreachable(f"{url} does not answer: {brief(error)}") from error
