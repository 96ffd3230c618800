"""What came of all sources => manifest, list of dropped items, and report, each a whole file."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from latentsync.data.manifest import DROPPED_NAME, MANIFEST_NAME, write_both
from latentsync.files import printable, publish
from latentsync.prepare.accounts import accounts_of, unaccounted
from latentsync.prepare.limits import Limits, within
from latentsync.prepare.record import Record, locked
from latentsync.prepare.remote_sources import source_of
from latentsync.prepare.report import write_report
from latentsync.prepare.reporting.page import Prepared, write_page
from latentsync.prepare.sources import recording_of
from latentsync.prepare.stage import Outcome

PAGE_NAME = "report.html"

logger = logging.getLogger(__name__)


@runtime_checkable
class SetRule(Protocol):
    """Looks at all clips of a set: drops some, or adds columns; a dataclass of its parameters."""

    name: ClassVar[str]

    def __call__(self, outcomes: Sequence[Outcome], /) -> list[Outcome]:
        """The outcomes, with what it drops among the dropped."""


def summarise(
    outcomes: Sequence[Outcome],
    output_dir: Path,
    limits: Limits | None = None,
    *,
    rules: Sequence[SetRule] = (),
    parameters: Mapping[str, object],
) -> list[Outcome]:
    """Write the summary of a data set; returns the outcomes within the limits, after all rules."""
    limits = limits or {}
    made, outcomes = outcomes, within(outcomes, limits)
    for rule in rules:
        outcomes = rule(outcomes)
    clips = [clip for outcome in outcomes for clip in outcome.clips]
    dropped = [asdict(dropped) for outcome in outcomes for dropped in outcome.dropped]
    write_both(clips, output_dir)
    write_lines(dropped, output_dir / DROPPED_NAME)
    shown = {**parameters, "limits": plain_limits(limits)} | {
        rule.name: repr(rule) for rule in rules
    }
    write_report(outcomes, output_dir, parameters=shown)
    write_page(output_dir / PAGE_NAME, Prepared(made, outcomes, limits, shown))
    logger.info("%d clips in %s, %d dropped", len(clips), output_dir, len(dropped))
    for account in unaccounted(accounts_of(outcomes)):
        logger.warning(
            "%s: %.2f of %.2f s are in no clip and not listed as dropped",
            printable(account.source),
            account.missing,
            account.total,
        )
    return outcomes


def plain_limits(limits: Limits) -> dict[str, dict[str, float]]:
    """The bounds that are set, for people to read."""
    bounds = {
        measure: {
            name: bound
            for name, bound in (("min", limit.min), ("max", limit.max))
            if bound is not None
        }
        for measure, limit in limits.items()
    }
    return {measure: each for measure, each in bounds.items() if each}


def filter_clips(
    output_dir: Path, limits: Limits, *, rules: Sequence[SetRule] = ()
) -> list[Outcome]:
    """Write the summary of a prepared set anew, with other limits and rules.

    Reads only what was recorded.

    Clips that were beyond the limits before come back. Sources that have been removed since the
    set was prepared stay out.
    """
    output_dir = output_dir.resolve()
    if not (output_dir / MANIFEST_NAME).is_file():
        raise FileNotFoundError(
            f"{output_dir} is no finished set (no {MANIFEST_NAME}): stage=filter needs one that "
            "stage=clips has ended"
        )
    with locked(output_dir):
        recorded, record = Record.existing(output_dir)
        given = str(recorded["input"])
        # The last version of a source that changed is the one that was prepared last.
        rows = {recording_of(item): row for item, row in record.rows.items()}
        listed = _listed_sources(output_dir, rows)
        check_up_to_date([rows[name] for name in listed if name in rows], output_dir)
        outcomes = [
            Outcome.from_row(row, source_of(row, given, name, output_dir), output_dir)
            for name, row in sorted(rows.items())
            if name in listed
        ]
        return summarise(outcomes, output_dir, limits, rules=rules, parameters=recorded)


def check_up_to_date(rows: Sequence[Mapping], folder: Path) -> None:
    """ValueError if a run with other parameters has not ended."""
    num_outdated = sum(bool(row.get("outdated")) for row in rows)
    if num_outdated:
        raise ValueError(
            f"{num_outdated} recordings of {folder} are yet to be made again with the parameters "
            "that were given last: give that command again first"
        )


def _listed_sources(output_dir: Path, rows: Mapping[str, dict]) -> set[str]:
    """Names of the sources with clips in the manifest, or in the list of dropped items."""
    kept = {clip["clip"] for clip in read_lines(output_dir / MANIFEST_NAME)}
    named = {str(row["source"]) for row in read_lines(output_dir / DROPPED_NAME)}
    return named | {
        name for name, row in rows.items() if any(clip["clip"] in kept for clip in row["clips"])
    }


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(rows: Iterable[Mapping], path: Path) -> None:
    with publish(path) as partial_path:
        partial_path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
