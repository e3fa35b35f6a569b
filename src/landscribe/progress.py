"""Progress of long tasks: a task reports its steps, and the reporter of the caller shows them.

The library is silent by default; the command line installs a reporter that draws progress bars on stderr.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    """The function by which a task reports progress."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Report `steps` more finished steps, and a note to show beside the bar."""


Reporter = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a task by its name and number of steps."""


@contextmanager
def silent(name: str, total: int) -> Iterator[Advance]:  # noqa: ARG001
    """Show nothing."""
    yield lambda steps=1, note="": None  # noqa: ARG005


reporter: ContextVar[Reporter] = ContextVar("reporter", default=silent)


def task(name: str, total: int, *, least: int = 0) -> AbstractContextManager[Advance]:
    """Open a task of `total` steps; the context gives the function that reports them. Fewer than `least` are silent.

    >>> with task("chipping", total=3) as advance:
    ...     for _ in range(3):
    ...         advance()
    """
    return (reporter.get() if total >= least else silent)(name, total)
