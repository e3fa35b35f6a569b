"""Names and colours of classes in files of other programs: written beside maps, and read."""
