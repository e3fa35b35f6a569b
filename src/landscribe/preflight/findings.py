"""Findings of a check: problems and facts, in the order of their severity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from landscribe.errors import counted

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One problem or fact, with values and what to do."""

    severity: Severity
    """An error stops the run, a warning may lower its accuracy, a note informs."""
    text: str


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def deduplicated(findings: Sequence[Finding]) -> list[Finding]:
    """Problems that differ only in their numbers are reported once, with the count of further files."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        _, _, rest = finding.text.partition(" ")
        groups.setdefault((finding.severity, re.sub(r"\d+", "0", rest)), []).append(finding)
    return [
        Finding(first.severity, first.text + (f" (The same for {counted(len(more), 'more file')}.)" if more else ""))
        for first, *more in groups.values()
    ]
