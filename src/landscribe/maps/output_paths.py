"""Output paths: the files of one map, and whether they can be written."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from landscribe.errors import OutputError
from landscribe.maps.candidates import require_readable_suffix
from landscribe.outputs import claim, require_absent, require_apart, require_writable

_SUFFIXES = (".tif", ".tiff")
"""Suffixes of rasters, which are GeoTIFFs."""


@dataclass(frozen=True)
class OutputPaths:
    """The class map, and its optional layers."""

    map: Path
    probabilities: Path | None = None
    uncertainty: Path | None = None
    suggested_labels: Path | None = None
    object_probabilities: Path | None = None

    @property
    def rasters(self) -> tuple[Path, ...]:
        """Paths of raster layers, the map first."""
        return tuple(path for path in self._rasters if path is not None)

    @property
    def _rasters(self) -> tuple[Path | None, ...]:
        return (self.map, self.probabilities, self.uncertainty, self.object_probabilities)

    def of(self, output: str) -> Path | None:
        """The path of the output of this name; None if it is not written."""
        path: Path | None = getattr(self, output)
        return path

    def __iter__(self) -> Iterator[Path]:
        """All paths, the map first."""
        yield from self.rasters
        if self.suggested_labels is not None:
            yield self.suggested_labels

    @contextmanager
    def claimed(self, *, shared: bool = False) -> Iterator[None]:
        """Claim all paths for this process: see `landscribe.outputs.claim`."""
        with ExitStack() as claims:
            for path in self:
                claims.enter_context(claim(path, shared=shared))
            yield

    def require_distinct(self, inputs: Collection[Path]) -> None:
        """Raise OutputError if two outputs share a path, an output is an input (resolved), or a suffix is wrong."""
        for path in self.rasters:
            if path.suffix.lower() not in _SUFFIXES:
                raise OutputError(
                    f"{path} has no suffix for a GeoTIFF. Give it {' or '.join(_SUFFIXES)}, or name an existing folder."
                )
        if self.suggested_labels is not None:
            require_readable_suffix(self.suggested_labels)
        named = [(name, path) for name, path in vars(self).items() if path is not None]
        for path in self:
            names = [name.replace("_", " ") for name, other in named if other.resolve() == path.resolve()]
            if len(names) > 1:
                raise OutputError(f"{path} is the path of both the {' and the '.join(names)}. Give each its own.")
        require_apart(self, inputs)

    def require_writable(self, *, overwrite: bool, own: set[Path]) -> None:
        """Raise OutputError if a path cannot be written, or exists and is neither to be overwritten nor our `own`."""
        for path in self:
            require_absent(path, overwrite=overwrite or path in own)
        for path in self:
            require_writable(path)
