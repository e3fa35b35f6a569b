"""`python -m landscribe`."""

from landscribe.cli import main

main()
