"""States of the files that chips are cut from, so that chips of earlier imagery or labels are not taken for current."""

import glob
from collections.abc import Sequence
from pathlib import Path

from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.geo.access import without_secrets
from landscribe.geo.rasters.source_files import FileState, file_state, raster_state
from landscribe.geo.vectors.vector_files import features_sha256, is_vector

_DATABASES = {".gpkg", ".sqlite", ".gdb"}
_OF_SHAPEFILE = {".shp", ".dbf", ".prj", ".cpg"}


def source_states(sources: Sequence[SceneSpec], split: SplitSpec) -> dict[str, FileState]:
    """The state of each file of imagery, labels, areas and split lists, by its path."""
    rasters = {path for source in sources for path in source.image}
    labels = {path for source in sources for path in (source.labels, source.labelled_area, source.image_area) if path}
    vectors = {path for path in labels if is_vector(path)}
    states = (
        {path: raster_state(path) for path in sorted(rasters | (labels - vectors))}
        | {path: _vector_state(path) for path in sorted(vectors)}
        | {path: file_state(path) for path in sorted(split.lists.values())}
    )
    return {without_secrets(path): state for path, state in states.items()}


def _vector_state(name: str) -> FileState:
    """The state of a file of features: of a database its features, of a Shapefile all of its files."""
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in _DATABASES and path.exists():
        return [path.name, features_sha256(name)]
    beside = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if suffix == ".shp" else []
    return file_state(name) + [file_state(str(part)) for part in beside if part.suffix.lower() in _OF_SHAPEFILE]
