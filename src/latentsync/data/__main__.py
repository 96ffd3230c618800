"""`python -m latentsync.data stats|verify`: what a prepared data set holds, and if it is whole."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from latentsync.data.clips import listed_clips, manifest_of
from latentsync.data.verify import damages_of, summary_of

EXIT_DAMAGED = 1
EXIT_USER_ERROR = 2


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: status 1 for a damaged set, 2 for errors the user can fix."""
    asked = parser().parse_args(words)
    try:
        damaged = show(asked.sets) if asked.command == "stats" else verify(asked.sets)
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python -m latentsync.data", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    for name, help_ in (
        ("stats", "print counts, lengths, and what was dropped at which stage"),
        ("verify", "open every file; print damaged ones and exit with status 1 if there are any"),
    ):
        command = commands.add_parser(name, help=help_)
        command.add_argument(
            "sets", type=Path, nargs="+", help="folders of prepare.py, or manifests"
        )
    return whole


if __name__ == "__main__":
    main()
