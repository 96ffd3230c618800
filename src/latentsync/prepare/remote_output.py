"""A set in a store is made in a working folder of this machine: fetched before, uploaded after."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from latentsync.data.clips import FEATURES_FOLDER, LATENTS_FOLDER
from latentsync.data.manifest import DROPPED_NAME, MANIFEST_NAME, TABLE_NAME
from latentsync.data.remote import Answer, ask, brief, is_remote, open_store
from latentsync.data.shards import INDEX_NAME, SHARDS_FOLDER
from latentsync.files import cache_root, publish, sha256_of, visible_files
from latentsync.prepare.again import remove_derived
from latentsync.prepare.record import RECORD_NAME, Record, locked, whole_lines
from latentsync.prepare.remote_sources import name_under, resolved_input, version_of
from latentsync.prepare.report import REPORT_NAME
from latentsync.prepare.shards import CLIPS_FOLDER
from latentsync.prepare.sources import find_sources
from latentsync.prepare.summary import PAGE_NAME

UPLOADS = ".uploads"  # in the working folder: a record of what the store has of it
UPLOADING = ".uploading-"  # begins a temporary name in the store
# Their files grow while they are written, and are renamed at no cost. In others a file is whole as
# soon as it is there, and renaming is copying.
RENAMING = frozenset(("file", "local", "sftp", "ssh"))
MANIFESTS = (TABLE_NAME, MANIFEST_NAME)
SUMMARY = (*MANIFESTS, DROPPED_NAME, REPORT_NAME, PAGE_NAME)


log = logging.getLogger(__name__)


@contextmanager
def working_copy(
    url: str, work_dir: Path | None = None, *, progress: bool = False
) -> Iterator[Path]:
    """The working folder of a set at `url`, up to date with it; uploaded when the block ends.

    `work_dir` None: in the user's cache, named by a hash of the URL. After an error in the block
    nothing is uploaded. ValueError if the folder and the store were continued apart from each
    other, PermissionError, StoreUnreachable.
    """
    url = url.rstrip("/")
    folder = (work_dir or default_folder(url)).resolve()
    stored = StoredSet(url, folder, progress=progress)
    stored.check_writable()
    with locked(folder / UPLOADS):
        stored.open_uploads()
        log.info("%s is made in %s", url, folder)
        with locked(folder):
            num_fetched = stored.bring()
        log.info("%d files of %s were not there, and fetched", num_fetched, url)
        is_made = False
        try:
            yield folder
            is_made = True
        finally:
            if not is_made:
                log.warning("nothing was uploaded: what was made is in %s", folder)
        with locked(folder):
            num_sent, num_removed = stored.send()
        log.info("%s: %d files uploaded, %d removed", url, num_sent, num_removed)


def default_folder(url: str) -> Path:
    """A folder for the URL in the user's cache, with the set's name: the report shows it."""
    digest = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()[:16]
    name = re.sub(r"[^\w .-]", "_", url.rpartition("/")[2]).lstrip(".")
    return cache_root() / "prepare" / digest / (name or "set")


def check_apart(input_dir: Path | str, url: str) -> None:
    """ValueError if one of the raw files and the set at `url` lies in the other."""
    given, url = resolved_input(input_dir), url.rstrip("/")
    store, root = open_store(url)
    if isinstance(store, LocalFileSystem):
        find_sources(given, Path(root).resolve())
    elif is_remote(given) and f"{url}/".startswith(f"{given}/"):
        raise ValueError(f"output {url} lies in the input {given}: raw files stay as is")
    elif is_remote(given) and f"{given}/".startswith(f"{url}/"):
        raise ValueError(f"{given} leads into the output {url}: input= holds raw files only")


class StoredSet:
    """A set in a store, and its working folder.

    What the store is known to have of the folder is noted: size, time and SHA-256 of the file here,
    and the version of that in the store.
    """

    noted: Record

    def __init__(self, url: str, folder: Path, *, progress: bool = False) -> None:
        if "::" in url:
            raise ValueError(f"output={url} is a chain of file systems: give the store itself")
        self.url, self.folder, self.progress = url, folder, progress
        self.store, root = open_store(url)
        self.root = root.rstrip("/")
        if isinstance(self.store, LocalFileSystem):
            place = Path(self.root).resolve()
            if place.is_relative_to(folder) or folder.is_relative_to(place):
                raise ValueError(f"work_dir={folder} and output={url} lie in each other")

    def check_writable(self) -> None:
        """Write and delete a small file, before hours of work."""
        place = self._place(f"{UPLOADING}test")
        if self._renames():
            self._ask(lambda: self.store.makedirs(self.root, exist_ok=True), "written")
        self._ask(lambda: self.store.pipe_file(place, b"test"), "written")
        self._ask(lambda: self.store.rm_file(place), "written")

    def open_uploads(self) -> None:
        """Read what was noted; ValueError if the folder belongs to another URL."""
        folder = self.folder / UPLOADS
        if whole_lines(folder / RECORD_NAME):
            before = Record.existing(folder)[0]["output"]
            if before != self.url:
                raise ValueError(
                    f"{self.folder} is the working folder of {before}: give {self.url} another "
                    "work_dir"
                )
        self.noted = Record.open(folder, {"output": self.url})

    def bring(self) -> int:
        """Fetch what other machines have made since, file by file, the record last; returns the
        number of files.

        What this one deleted since it last uploaded is not fetched, for that is not yet known in
        the store.
        """
        there = self.listing()
        own = whole_lines(self.folder / RECORD_NAME)
        stored = self._stored_record() if RECORD_NAME in there else []
        length = min(len(own), len(stored))
        if own[:length] != stored[:length]:
            raise ValueError(
                f"{self.url} and its working folder {self.folder} were continued apart from each "
                "other: move the folder away to go on from the store, or give another output"
            )
        is_behind = len(own) < len(stored)
        self._compare(there, is_behind=is_behind)
        if len(own) > len(stored):
            return 0
        for name in clip_names(stored[length:]):
            remove_derived(self.folder, name)
        belongs = members(stored)
        wanted = [
            name for name in there if belongs(name) and self._is_newer(name, there[name], is_behind)
        ]
        for name in self._shown(sorted(wanted, key=lambda name: name == RECORD_NAME), "fetch"):
            self._fetch(name, there[name])
        return len(wanted)

    def send(self) -> tuple[int, int]:
        """Upload what changed, the manifest last, then remove what the set no longer has and was
        put there from here; returns the numbers of files."""
        belongs = members(whole_lines(self.folder / RECORD_NAME))
        found = (path.relative_to(self.folder).as_posix() for path in visible_files(self.folder))
        here = {name for name in found if belongs(name)}
        changed = [name for name in sorted(here, key=turn) if not self._is_as_noted(name)]
        for name in self._shown(changed, "upload"):
            self._upload(name)
        removed = [name for name in self._names() if name not in here]
        for name in removed:
            self._remove(name)
        if changed:
            there = self.listing()
            for name in changed:
                self._note(name, version=there.get(name, ""))
        return len(changed), len(removed)

    def listing(self) -> dict[str, str]:
        """Versions of the files in the store by name."""
        self.store.invalidate_cache()
        try:
            found: Mapping[str, Mapping] = self._ask(
                lambda: self.store.find(self.root, detail=True), "listed"
            )
        except FileNotFoundError:
            return {}
        listed = {name_under(place, self.root): version_of(each) for place, each in found.items()}
        if "" in listed and len(listed) == 1 and self.store.isfile(self.root):
            raise ValueError(f"{self.url} is a file: output= is a folder")
        return {name: listed[name] for name in sorted(listed) if name}

    def _compare(self, there: Mapping[str, str], *, is_behind: bool) -> None:
        """Forget what is not in the store any more; if the store went on, it is deleted here too.
        Versions which a killed run did not come to note are noted."""
        for name in self._names():
            row = self.noted.rows[name]
            if name not in there:
                self.noted.add(name, {"gone": True})
                if is_behind:
                    (self.folder / name).unlink(missing_ok=True)
            elif not row["version"] and there[name].startswith(f"{row['size']} "):
                self.noted.add(name, {**row, "version": there[name]})

    def _is_newer(self, name: str, version: str, is_behind: bool) -> bool:
        """Whether the file is in the store as another machine made it, and not so here."""
        is_here = (self.folder / name).is_file()
        is_known = name in self._names()
        if is_known and self.noted.rows[name]["version"] == version:
            return is_behind and not is_here
        return not is_here or is_behind or (is_known and self._is_as_noted(name))

    def _is_as_noted(self, name: str) -> bool:
        row, path = self.noted.rows.get(name), self.folder / name
        if row is None or row.get("gone"):
            return False
        status = path.stat()
        if status.st_size != row["size"]:
            return False
        return status.st_mtime_ns == row["mtime_ns"] or sha256_of(path) == row["sha256"]

    def _note(self, name: str, *, version: str) -> None:
        path = self.folder / name
        status = path.stat()
        row = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        self.noted.add(name, {**row, "sha256": sha256_of(path), "version": version})

    def _names(self) -> list[str]:
        """What the store is known to have."""
        return [name for name, row in self.noted.rows.items() if not row.get("gone")]

    def _stored_record(self) -> list[str]:
        place = self._place(RECORD_NAME)
        content = self._ask(lambda: self.store.cat_file(place), "read")
        whole = content[: content.rfind(b"\n") + 1]  # a killed upload may have left a part of it
        return whole.decode("utf-8").splitlines()

    def _fetch(self, name: str, version: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with publish(path) as partial:
            self._ask(lambda: self.store.get_file(self._place(name), str(partial)), "read")
        self._note(name, version=version)

    def _upload(self, name: str) -> None:
        path, place = str(self.folder / name), self._place(name)
        if not self._renames():
            self._ask(lambda: self.store.put_file(path, place), "written")
        else:
            parent, _, last = place.rpartition("/")
            partial = f"{parent}/{UPLOADING}{last}"
            self._ask(lambda: self.store.makedirs(parent, exist_ok=True), "written")
            self._ask(lambda: self.store.put_file(path, partial), "written")
            self._ask(lambda: self.store.mv(partial, place), "written")
        self._note(name, version="")

    def _remove(self, name: str) -> None:
        try:
            self._ask(lambda: self.store.rm_file(self._place(name)), "written")
        except FileNotFoundError:
            log.info("%s/%s was removed by somebody else", self.url, name)
        self.noted.add(name, {"gone": True})

    def _renames(self) -> bool:
        kinds = self.store.protocol
        return not RENAMING.isdisjoint((kinds,) if isinstance(kinds, str) else kinds)

    def _place(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _shown(self, names: list[str], what: str) -> Iterable[str]:
        return tqdm(names, desc=what, unit="file", disable=not self.progress)

    def _ask(self, act: Callable[[], Answer], what: str) -> Answer:
        """What the store answers; some tries if it fails to."""
        try:
            return ask(
                act,
                f"{self.url} could not be {what}",
                advice="the same command goes on",
                passed=(FileNotFoundError, PermissionError),
            )
        except PermissionError as error:
            raise PermissionError(f"{self.url} must not be {what}: {brief(error)}") from error


def turn(name: str) -> tuple[int, str]:
    """When a file is uploaded: what lists others comes after them, the manifest last."""
    if name in MANIFESTS:
        return 4, name
    if name in SUMMARY:
        return 3, name
    if name == RECORD_NAME:
        return 2, name
    return int(name.endswith((f"/{RECORD_NAME}", f"/{INDEX_NAME}"))), name


def clip_names(lines: Iterable[str]) -> set[str]:
    """Names of all clips in a record."""
    rows = (json.loads(line) for line in lines)
    return {Path(clip["clip"]).stem for row in rows for clip in row.get("clips", ())}


def members(lines: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is that of a file of the set with this record; others are left alone."""
    clips = clip_names(lines)
    tables = frozenset((RECORD_NAME, *SUMMARY))

    def belongs(name: str) -> bool:
        path = PurePosixPath(name)
        top, depth = path.parts[0], len(path.parts)
        if depth == 1:
            return name in tables
        if top == SHARDS_FOLDER:
            is_list = path.name in (RECORD_NAME, INDEX_NAME)
            return depth == 2 and (is_list or path.match("shard-*.tar"))
        if top == CLIPS_FOLDER:
            return depth == 2 and path.suffix == ".mp4" and path.stem in clips
        if top not in (FEATURES_FOLDER, LATENTS_FOLDER):
            return False
        is_made = path.suffix == ".safetensors" and path.stem in clips
        return (depth == 3 and path.name == RECORD_NAME) or (depth in (2, 3) and is_made)

    return belongs
