"""Derived: rasters that are computed from others when they are read."""

from dataclasses import dataclass

from landscribe.geo.rasters.raster import Raster


@dataclass(frozen=True, eq=False)
class Derived:
    """The part of a `Source` that is the same for all rasters that are computed from a single one."""

    raster: Raster

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.raster.paths

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """See `Source`."""
        return (self.raster,)

    @property
    def mask_files(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.raster.mask_files

    def close(self) -> None:
        """See `Source`."""
        self.raster.source.close()
