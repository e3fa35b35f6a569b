"""What networks train on, cut and indexed."""
