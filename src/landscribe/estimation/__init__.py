"""From a reference sample to accuracy and areas, each with its standard error and interval."""
