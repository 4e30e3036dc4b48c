"""``python -m s2cube``."""

from s2cube.cli.commands import main

if __name__ == "__main__":
    main()
