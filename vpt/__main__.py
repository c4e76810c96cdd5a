"""`python -m vpt`, for where the command `vpt` is not on the path."""

from vpt.cli import main

if __name__ == "__main__":
    main()
