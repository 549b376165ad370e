"""`python -m lightning_metakd` is `metakd`."""

from lightning_metakd.cli.command import console

if __name__ == "__main__":
    console()
