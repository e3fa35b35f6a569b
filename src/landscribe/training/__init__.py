"""From chips to a model folder."""
