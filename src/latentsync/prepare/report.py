"""The report of a preparation as text: report.md, the same for the same set."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentsync.files import printable, publish
from latentsync.prepare.accounts import Account, accounts_of, unaccounted
from latentsync.prepare.stage import Outcome

REPORT_NAME = "report.md"
MAX_EXAMPLES = 20
FIRST_STAGE = "probe"


def write_report(outcomes: Sequence[Outcome], output_dir: Path, *, parameters: dict) -> None:
    """Write report.md."""
    with publish(output_dir / REPORT_NAME) as partial:
        partial.write_text(printable(report_text(outcomes, parameters)), encoding="utf-8")


def report_text(outcomes: Sequence[Outcome], parameters: dict) -> str:
    clips = [clip for outcome in outcomes for clip in outcome.clips]
    dropped = [dropped for outcome in outcomes for dropped in outcome.dropped]
    seconds = [clip.num_frames / clip.fps for clip in clips]
    lines = ["# Prepared clips", "", "| | |", "|---|---|"]
    lines += [
        f"| raw files | {len(outcomes)} |",
        f"| of these, files with a clip | {sum(bool(outcome.clips) for outcome in outcomes)} |",
        f"| clips | {len(clips)} |",
        f"| total | {sum(seconds) / 60:.1f} min |",
    ]
    if clips:
        median = float(np.median(seconds))
        lines += [
            f"| seconds per clip, least / median / most | "
            f"{min(seconds):.1f} / {median:.1f} / {max(seconds):.1f} |"
        ]
    lines += accounts_lines(accounts_of(outcomes))
    lines += [f"| dropped | {len(dropped)} |"]
    counts = Counter(item.stage for item in dropped)
    lines += [f"| - at stage {stage} | {count} |" for stage, count in sorted(counts.items())]
    if dropped:
        lines += ["", "## Dropped (all of them: dropped.jsonl)", ""]
        # List what was lost of videos before files that are no videos.
        shown = sorted(dropped, key=lambda item: item.stage == FIRST_STAGE)[:MAX_EXAMPLES]
        lines += [f"- `{item.source}`: {item.reason}" for item in shown]
    if clips:
        lines += ["", "Pictures of clips and of what was dropped: report.html."]
    lines += [
        "",
        "## Parameters",
        "",
        "```json",
        json.dumps(parameters, indent=2, default=str),
        "```",
        "",
    ]
    return "\n".join(lines)


def accounts_lines(accounts: Sequence[Account]) -> list[str]:
    """That seconds in clips and dropped ones add up to all, and of which sources they do not."""
    if not accounts:
        return []
    kept, dropped, total = (
        sum(getattr(account, name) for account in accounts) for name in ("kept", "dropped", "total")
    )
    missing = unaccounted(accounts)
    return [
        f"| kept + dropped of all seconds | {kept:.1f} + {dropped:.1f} of {total:.1f} |",
        f"| files with seconds in neither | {len(missing) or 'none'} |",
        *(f"| - `{account.source}` | {account.missing:.2f} s |" for account in missing),
    ]
