"""Where the files of a map go."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from landscribe.errors import OutputError
from landscribe.maps.candidates import require_readable_suffix
from landscribe.outputs import require_absent, require_writable

_SUFFIXES = (".tif", ".tiff")
"""Of the rasters: they are GeoTIFFs, whatever they are called."""


@dataclass(frozen=True)
class Places:
    """The map, and what else is asked for."""

    map: Path
    probabilities: Path | None = None
    uncertainty: Path | None = None
    label_next: Path | None = None

    @property
    def rasters(self) -> tuple[Path, ...]:
        """Those of layers."""
        return tuple(path for path in (self.map, self.probabilities, self.uncertainty) if path is not None)

    def __iter__(self) -> Iterator[Path]:
        """All, the map first."""
        yield from self.rasters
        if self.label_next is not None:
            yield self.label_next

    def require_apart(self, read: tuple[str, ...]) -> None:
        """Raise OutputError where one would be written over another, over what is read, or under a misleading name."""
        for path in self.rasters:
            if path.suffix.lower() not in _SUFFIXES:
                raise OutputError(
                    f"{path} is no name for a GeoTIFF. One that ends with {' or '.join(_SUFFIXES)} was expected, or a "
                    "folder that exists."
                )
        if self.label_next is not None:
            require_readable_suffix(self.label_next)
        named = [(name, path) for name, path in vars(self).items() if path is not None]
        for path in self:
            both = [name.replace("_", " ") for name, other in named if other.resolve() == path.resolve()]
            if len(both) > 1:
                raise OutputError(f"{path} is the place of both the {' and the '.join(both)}. Give each its own.")
            if path.resolve() in {Path(name).resolve() for name in read}:
                raise OutputError(
                    f"{path} is the raster that is to be mapped. Nothing was changed. Choose another place."
                )

    def require_free(self, *, overwrite: bool, own: set[Path]) -> None:
        """Raise OutputError where something stands, unless it is to be replaced or is our `own`; or nothing can be."""
        for path in self:
            require_absent(path, overwrite=overwrite or path in own)
        for path in list(self)[1:]:
            require_writable(path)
