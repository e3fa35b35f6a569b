"""The user's mistakes. Each message says what, with values; what was expected; what to do.

The command line prints the message as one line and exits with 2. Anything else that is raised is our bug.
"""


class LandscribeError(Exception):
    """A mistake of the user's, or of the machine's, that a person can mend."""


class GridError(LandscribeError):
    """Rasters that do not lie on one usable grid."""


class RasterError(LandscribeError):
    """A raster that cannot be opened or read, or whose pixels cannot be used."""


class UnreachableError(RasterError):
    """A raster that cannot be opened: it is not there, is damaged, or far away and does not answer."""


class ReadError(RasterError):
    """A place in a raster that cannot be read now: it is damaged, or far away and does not answer."""


class ServerError(ReadError):
    """A place in a raster that its server does not send now: it is down, busy, or refuses."""


class LabelError(LandscribeError):
    """Labels that cannot be read, placed or told apart."""


class ClassError(LandscribeError):
    """A class table that contradicts itself, or values that are not in it."""


class TilingError(LandscribeError):
    """A size, stride or margin that cannot cover a raster."""


class ChipError(LandscribeError):
    """A chips folder that cannot be made, read or split."""


class RecipeError(LandscribeError):
    """A recipe or setting that cannot be understood."""


class NetworkError(LandscribeError):
    """An unknown architecture, encoder, loss or weight file."""


class ModelError(LandscribeError):
    """A model folder that is incomplete, altered, unsafe, or does not fit the raster."""


class OutputError(LandscribeError):
    """A place where nothing can be written, or where something stands already."""


class EngineError(LandscribeError):
    """Machines that cannot be reached or lack memory, or work that cannot be divided so."""


class BackendError(LandscribeError):
    """A backend that is not installed, or does not run this network or on this device."""


class UnfinishedError(LandscribeError):
    """Work is left, and what is done is kept for the same command. The command line exits with 1."""
