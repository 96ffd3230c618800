"""Errors that the user can fix => one sentence; bugs get none and keep their traceback."""

import difflib
import errno
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    CompactHydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from latentsync.cli.missing import Incomplete, missing_sentence
from latentsync.cli.names import as_typed
from latentsync.cli.renamed import CONFIGS, left_out_today, option_of_today
from latentsync.cli.signatures import parameters_of
from latentsync.data.remote import StoreUnreachable
from latentsync.extras import install, missing_part

VERSION_BASE = "1.3"
FULL_ERROR = "HYDRA_FULL_ERROR"
MAX_CHARACTERS = 600  # libraries may list every tensor of a network
# Names of Hydra's launchers and sweepers => a module that their extra installs.
PLUGINS = {
    "joblib": "joblib",
    "optuna": "optuna",
    "ray": "ray",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
}
# Parts of a config that are passed as arguments to a class but have no _target_ of their own.
ARGUMENTS_OF = {
    "data.both": "latentsync.data.Items",
    "data.train": "latentsync.data.Items",
    "data.val": "latentsync.data.Items",
}


def explain(error: BaseException, config_name: str, *, conf: Path) -> str | None:
    """One sentence for an error that the user can fix; None for a bug.

    `conf`: the folder of configs.
    """
    try:
        return _sentence(error, _Asked(config_name, conf))
    except Exception:  # noqa: BLE001  (whatever fails in here must not hide the error itself)
        return None


class _Asked:
    """The command, from its command line and the folder of configs."""

    def __init__(self, config_name: str, conf: Path) -> None:
        self.config_name, self.conf = config_name, conf

    def config(self, *, but: str = "") -> DictConfig:
        """The requested config, without the override of the key `but`; if that fails, without
        overrides."""
        typed = as_typed(sys.argv[1:], self.config_name)
        words = [word for word in typed if "=" in word and not word.startswith("-")]
        right = [word for word in words if word.split("=", 1)[0].lstrip("+~") != but]
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(self.conf), version_base=VERSION_BASE):
            try:
                return hydra.compose(self.config_name, overrides=right)
            except (CompactHydraException, OmegaConfBaseException):
                return hydra.compose(self.config_name)

    def groups(self) -> list[str]:
        found = (path for path in self.conf.rglob("*") if path.is_dir())
        return sorted(path.relative_to(self.conf).as_posix() for path in found)

    def members(self, group: str = "") -> list[str]:
        """Names of a group's configs; without a group, all names, including those of commands."""
        folder = self.conf / group
        found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
        return sorted(path.as_posix() for path in found)


def _sentence(error: BaseException, asked: _Asked) -> str | None:
    if isinstance(error, Incomplete):
        return str(error)  # several lines if experiments are listed
    for kind, explainer in KINDS.items():
        if isinstance(error, kind):
            message = explainer(error, asked)
            return message if explainer is _not_given else " ".join(message.split())
    if isinstance(error, ValueError) and is_ours(error):
        return " ".join(_input(error, asked).split())
    return missing_part(error)


def is_ours(error: BaseException) -> bool:
    """Whether our code raised it: a ValueError from inside a library is a bug, not advice."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Frames of compiled extensions may have no name.
    name = "latentsync" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return str(name).split(".")[0] == "latentsync"


def _input(error: BaseException, _: _Asked) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}the disk is full: free some space, then give the same command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _not_built(error: BaseException, asked: _Asked) -> str:
    """A part could not be built: the cause if the user can fix it, else Hydra's message."""
    part = missing_part(error)
    cause = error.__cause__ and _sentence(error.__cause__, asked)
    if part or cause:
        return str(part or cause)
    text = " ".join(str(error).split())
    more = len(text) > MAX_CHARACTERS
    shown = f"{text[:MAX_CHARACTERS]} ..." if more else text
    return f"{shown} ({FULL_ERROR}=1 shows {'all of it and ' if more else ''}where)"


def _not_parsed(error: OverrideParseException, _: _Asked) -> str:
    return f"{error.override!r} is not an override (name=value): {error.message}"


def _not_given(error: OmegaConfBaseException, asked: _Asked) -> str:
    sentence = missing_sentence(asked.config(), asked.config_name, conf=asked.conf)
    return sentence or f"{error.full_key}= must be given"


def _no_interpolation(error: OmegaConfBaseException, _: _Asked) -> str:
    text = str(error).splitlines()[0]
    return f"{error.full_key}: {text}; in quotes, \\${{ is a plain ${{"


def _no_config(error: MissingConfigException, asked: _Asked) -> str:
    missing = error.missing_cfg_file or ""
    if missing.startswith("hydra/") and missing.rsplit("/", 1)[1] in PLUGINS:
        name = missing.rsplit("/", 1)[1]
        return f"{missing} is not installed: {install(PLUGINS[name])}"
    group = next(
        (name for name in asked.groups() if missing.startswith(f"{name}/") and "/" not in name),
        None,
    )
    if group is None:
        return f"no config is called {missing!r}{near(missing, asked.members())}"
    wrong = missing.removeprefix(f"{group}/")
    if missing in CONFIGS:
        return f"no {group} is called {wrong!r} any more: say {CONFIGS[missing]}"
    return f"no {group} is called {wrong!r}{near(wrong, asked.members(group))}"


def _no_override(error: CompactHydraException, asked: _Asked) -> str:
    cause = error.__cause__
    deleted = re.search(r"Could not delete from config\. '([^']+)'", str(error))
    instead = left_out_today(deleted[1]) if deleted else None
    if deleted and instead:
        return f"no config value is called {deleted[1]!r} any more: {instead}"
    named = re.search(r"Could not override '([^']+)'", str(error))
    if named is None:
        return f"{error} {cause}" if isinstance(cause, OmegaConfBaseException) else str(error)
    key = named[1]
    today = option_of_today(key)
    if today is not None:
        return f"no config value is called {key!r} any more: say {today}..."
    if "No match in the defaults list" in str(error):
        return f"configs of the group {key!r} exist, but {asked.config_name} uses none of them"
    config = asked.config(but=key)
    above, _, last = key.rpartition(".")
    taken = _arguments(config, above)
    if last in taken:
        advice = re.search(r"append to your config use (.+)", str(error))
        return (
            f"{key} is left out in the config, but there is such an argument: say "
            f"{advice[1] if advice else f'+{key}=...'}, with a +"
        )
    known = list(_flat_keys(OmegaConf.to_container(config, resolve=False)))
    groups = [name for name in asked.groups() if "/" not in name]
    added = [f"{above}.{name}" for name in taken if f"{above}.{name}" not in known]
    found = near(key, sorted({*known, *groups, *added}), few=[*config])
    for name in added:
        found = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f"+{name}", found)
    return f"no config value is called {key!r}{found}"


def _arguments(config: DictConfig, above: str) -> Sequence[str]:
    """All parameters of a part of the config, including those the config does not set."""
    node = OmegaConf.select(config, above) if above else None
    if not isinstance(node, DictConfig):
        return ()
    target = ARGUMENTS_OF.get(above) or node.get("_target_")
    return parameters_of(target) if target else ()


def near(wrong: str, names: Sequence[str], *, few: Sequence[str] | None = None) -> str:
    """Similar names, else those with the same last part, else all of them (or the `few`),
    grouped."""
    found = difflib.get_close_matches(wrong, names, n=4, cutoff=0.6)
    if not found:
        last = wrong.rsplit(".", 1)[-1]
        found = [name for name in names if name.rsplit(".", 1)[-1] == last][:4]
    if found:
        return f"; near: {', '.join(found)}"
    everything = sorted(names if few is None else few)
    return f"; there are: {grouped(everything)}" if everything else ""


def grouped(names: Sequence[str]) -> str:
    """Names grouped by folder or first word."""

    def kind(name: str) -> tuple[bool, str]:
        folder, _, _ = name.rpartition("/")
        return (bool(folder), folder or name.split("_")[0])

    groups = groupby(sorted(names, key=kind), key=kind)
    parts = [list(group) for _, group in groups]
    between = "; " if max(map(len, parts)) > 1 else ", "
    return between.join(", ".join(part) for part in parts)


def _flat_keys(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            if "." in str(name):  # an override of another config: no path leads to it
                yield f"{prefix[:-1]}={{{name}:...}}"
                continue
            yield f"{prefix}{name}"
            yield from _flat_keys(child, f"{prefix}{name}.")


# The first match counts: Hydra's errors inherit from each other.
KINDS: dict[type[BaseException], Callable[..., str]] = {
    MissingConfigException: _no_config,
    InstantiationException: _not_built,
    OverrideParseException: _not_parsed,
    MissingMandatoryValue: _not_given,
    InterpolationToMissingValueError: _not_given,
    CompactHydraException: _no_override,
    InterpolationResolutionError: _no_interpolation,
    StoreUnreachable: _input,
    OSError: _input,
}
