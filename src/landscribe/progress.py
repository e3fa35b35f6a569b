"""How far a long step is: steps report, whoever runs them decides what is shown.

The library is silent by default; the command line installs a reporter that draws bars on stderr.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    """Called when `steps` more are done; `note` is shown behind the bar."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Report."""


Reporter = Callable[[str, int], AbstractContextManager[Advance]]


@contextmanager
def _silent(what: str, total: int):  # type: ignore[no-untyped-def]  # noqa: ANN202, ARG001
    yield lambda steps=1, note="": None  # noqa: ARG005


reporter: ContextVar[Reporter] = ContextVar("reporter", default=_silent)


def task(what: str, total: int) -> AbstractContextManager[Advance]:
    """Open a task of `total` steps; the context gives the function that reports them."""
    return reporter.get()(what, total)
