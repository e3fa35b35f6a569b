"""The settings of objects. Loads pydantic only, so that a command's help needs no scikit-image."""

from pydantic import Field

from landscribe.spec import Spec


class ObjectSpec(Spec):
    """How the pixels of a map become objects.

    Objects that touch are separated by the inner parts and borders that a network of unet_id predicts, or without
    these by the distance to the edge of the map's class, which is short where two objects join.
    """

    inner_threshold: float = Field(0.5, gt=0, lt=1)
    """Probability of an inner part from which a pixel is a seed of an object, unless it is rather a border."""
    minimum_seed: int = Field(10, ge=1, le=10**6)
    """Smaller inner parts are left out, in pixels."""
    minimum_distance: float = Field(4.0, gt=0, le=1e4)
    """Minimum distance between the middles of two objects that touch, in metres, without object probabilities."""
    block: int = Field(1024, ge=16, le=2**12)
    """Side of the blocks that are computed at once, in pixels."""
    halo: int = Field(256, ge=2, le=2**10)
    """Pixels around a block that are read with it. Objects up to this size do not depend on the blocks."""
