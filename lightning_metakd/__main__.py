"""`python -m lightning_metakd` is `metakd`."""

from lightning_metakd.cli import main

if __name__ == "__main__":
    main()
