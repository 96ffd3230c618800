"""`python -m latentsync.data stats|verify|merge|sample|filter`: what prepared sets hold, if it is
whole, and manifests of some of their clips."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from latentsync.data.manifest import listed_clips, manifest_of
from latentsync.data.subsets import Bounds, filtered, merge, sample
from latentsync.data.verify import damages_of, summary_of

EXIT_DAMAGED = 1
EXIT_USER_ERROR = 2


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: status 1 for a damaged set, 2 for errors the user can fix."""
    asked = parser().parse_args(words)
    try:
        damaged = COMMANDS[asked.command](asked)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
    if damaged:
        sys.exit(EXIT_DAMAGED)


def show(sets: Sequence[Path]) -> int:
    """Print what the sets hold; returns 0."""
    for path in sets:
        sys.stdout.write(f"{path}\n")
        for name, value in summary_of(path).items():
            sys.stdout.write(f"  {name:<22} {value}\n")
    return 0


def verify(sets: Sequence[Path]) -> int:
    """Check every file of the sets, print each damaged one, and return how many there are."""
    damaged = 0
    for path in sets:
        clips = listed_clips(manifest_of(path))
        before = damaged
        checked = tqdm(
            damages_of(clips),
            total=len(clips),
            desc=f"verify {path.name}",
            unit="clip",
            disable=None,
        )
        for damages in checked:
            for damage in damages:
                tqdm.write(f"{damage.path}: {damage.reason}", file=sys.stdout)
                damaged += 1
        sys.stdout.write(f"{path}: {len(clips)} clips, {damaged - before} damaged files\n")
    if damaged:
        sys.stdout.write("delete such files and give the set's prepare.py commands again\n")
    return damaged


def choose(asked: argparse.Namespace) -> int:
    """Write a manifest of some clips; returns 0."""
    if asked.command == "merge":
        count = merge(asked.sets, asked.output)
    elif asked.command == "sample":
        count = sample(asked.set, asked.output, count=asked.count, seed=asked.seed)
    else:
        least, most = (
            {name: float(text) for name, text in each} for each in (asked.min, asked.max)
        )
        count = filtered(asked.set, asked.output, Bounds(least, most, dict(asked.equal)))
    sys.stdout.write(f"{asked.output}: {count} clips\n")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "stats": lambda asked: show(asked.sets),
    "verify": lambda asked: verify(asked.sets),
    "merge": choose,
    "sample": choose,
    "filter": choose,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python -m latentsync.data", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    for name, help_ in (
        ("stats", "print counts, lengths, and what was dropped at which stage"),
        ("verify", "open every file; print damaged ones and exit with status 1 if there are any"),
        ("merge", "write a manifest of the clips of several sets"),
    ):
        command = commands.add_parser(name, help=help_)
        command.add_argument(
            "sets", type=Path, nargs="+", help="folders of prepare.py, or manifests"
        )
        if name == "merge":
            _add_output(command)
    command = commands.add_parser("sample", help="write a manifest of some clips, chosen by a seed")
    command.add_argument("set", type=Path, help="a folder of prepare.py, or a manifest")
    command.add_argument("--count", type=int, required=True, help="how many clips")
    command.add_argument("--seed", type=int, default=0)
    _add_output(command)
    command = commands.add_parser("filter", help="write a manifest of the clips within bounds")
    command.add_argument("set", type=Path, help="a folder of prepare.py, or a manifest")
    for name, help_ in (
        ("--min", "COLUMN=NUMBER, the least it may be"),
        ("--max", "COLUMN=NUMBER, the most it may be"),
        ("--equal", "COLUMN=TEXT, what it must be"),
    ):
        command.add_argument(
            name, type=_named, action="append", default=[], metavar="COLUMN=VALUE", help=help_
        )
    _add_output(command)
    return whole


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output", type=Path, required=True, help="the manifest to write, *.jsonl or *.parquet"
    )


def _named(word: str) -> tuple[str, str]:
    name, found, value = word.partition("=")
    if not (name and found and value):
        raise argparse.ArgumentTypeError(f"{word!r} must be COLUMN=VALUE")
    return name, value


if __name__ == "__main__":
    main()
