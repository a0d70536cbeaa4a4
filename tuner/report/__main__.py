"""``python -m tuner.report``."""

from tuner.report import main

if __name__ == "__main__":
    main()
