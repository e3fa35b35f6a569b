"""Derived: rasters that are computed from others when they are read."""

from dataclasses import dataclass

from landscribe.geo.rasters.raster import Raster


@dataclass(frozen=True, eq=False)
class Derived:
    """The part of a `Source` that is the same for all rasters that are computed from others."""

    rasters: tuple[Raster, ...]
    """At least one."""

    @property
    def raster(self) -> Raster:
        """The first raster, which is the only one of most sources."""
        return self.rasters[0]

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.paths)

    @property
    def mask_files(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(path for raster in self.rasters for path in raster.mask_files)

    def close(self) -> None:
        """See `Source`."""
        for raster in self.rasters:
            raster.source.close()
