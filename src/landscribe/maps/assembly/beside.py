"""Blocks that are compressed while units are computed: those of a group as soon as all of its units are done."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from landscribe.executor import stopped_at_exit
from landscribe.geo.grid import Window
from landscribe.geo.tiling import Unit
from landscribe.maps.assembly.blocks import Blocks, groups
from landscribe.maps.assembly.cog import unit_sources
from landscribe.maps.unit_store import UnitStore


@contextmanager
def compressed_beside(
    store: UnitStore, units: Sequence[Unit], layers: Sequence[Blocks], threads: int
) -> Iterator[Callable[[Unit], None]]:
    """Compress groups of blocks in threads, during the block.

    Groups whose last unit was done before are left to `assemble`, and so are those that wait when the block ends: it
    compresses them in all cores.

    Args:
        store: of the units.
        units: of the map, done or not.
        layers: the blocks of each layer.
        threads: that compress, at most.

    Yields:
        A function to call with each unit when it is done.

    Raises:
        DamagedPartError: a unit cannot be read; raised at the end, as all errors.
        OutputError: a file cannot be written.
    """
    waiting = [_Waiting(store, units, blocks) for blocks in layers]
    tasks: list[Future[None]] = []
    threads = min((blocks.threads(threads) for blocks in layers), default=1)
    with stopped_at_exit(ThreadPoolExecutor(threads)) as pool:
        yield lambda unit: tasks.extend(
            pool.submit(layer.compress, window) for layer in waiting for window in layer.complete(unit)
        )
    for task in tasks:
        if not task.cancelled():
            task.result()


class _Waiting:
    """The groups of one layer, each with the files of units that are not done."""

    def __init__(self, store: UnitStore, units: Sequence[Unit], blocks: Blocks) -> None:
        self._store, self._blocks = store, blocks
        self._sources = blocks.sources(unit_sources(store, units, blocks.layer))
        self._units = {store.path(unit, blocks.layer.kind): unit for unit in units}
        self._by_file: dict[Path, list[Window]] = defaultdict(list)
        missing = {path for path, unit in self._units.items() if not store.is_done(unit)}
        self._files: dict[Window, set[Path]] = {}
        for window in groups(blocks.shape):
            self._files[window] = {source.path for source in self._sources.of(window)} & missing
            for path in self._files[window]:
                self._by_file[path].append(window)

    def complete(self, unit: Unit) -> Iterator[Window]:
        """The groups that waited for this unit alone."""
        path = self._store.path(unit, self._blocks.layer.kind)
        for window in self._by_file.pop(path, ()):
            self._files[window].discard(path)
            if not self._files[window]:
                yield window

    def compress(self, window: Window) -> None:
        """Compress a group, unless it has no mapped pixel."""
        # Units without mapped pixels have no files.
        near = self._sources.of(window)
        files = [source for source in near if self._store.areas(self._units[source.path]).pixels]
        if files:
            self._blocks.compress(window, self._blocks.sources(files))
