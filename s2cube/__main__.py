"""``python -m s2cube``."""

from s2cube.cli import main

if __name__ == "__main__":
    main()
