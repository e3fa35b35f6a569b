"""A network and all that is needed to use it, and the model folder."""

from landscribe.model.config import ModelConfig, Scaling
from landscribe.model.model import Model

__all__ = ["Model", "ModelConfig", "Scaling"]
