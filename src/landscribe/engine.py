"""Run many independent units of work.

A unit is done once its task returns; what it made lies in files of its own. So units may run in any order,
anywhere, and again.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def run_units(task: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[tuple[Unit, Result]]:
    """Run `task` on each unit, here and one after the other; yields each unit with its result when done."""
    for unit in units:
        yield unit, task(unit)
