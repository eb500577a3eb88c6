"""`python -m debias`, the same as the `debias` script: the form that `torchrun -m` needs."""

from .cli import main

main()
