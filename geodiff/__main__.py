"""`python -m geodiff` is the command `geodiff`."""

from geodiff.cli import main

main()
