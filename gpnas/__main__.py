"""`python -m gpnas`, which torchrun can start."""

from gpnas.cli.app import main

main()
