"""`python -m landscribe`."""

from landscribe.commands.app import main

main()
