"""`python -m gpnas`, which torchrun can start."""

from gpnas.cli import main

main()
