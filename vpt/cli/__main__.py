"""`python -m vpt.cli`, as launchers start it: `torchrun -m vpt.cli train ...`."""

from vpt.cli import main

if __name__ == "__main__":
    main()
