"""``python -m tuner`` is the console script."""

from tuner.cli import main

main()
