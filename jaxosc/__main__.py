"""`python -m jaxosc` is the command `jaxosc`, for machines where scripts are not on the path."""

from .cli import main

main()
