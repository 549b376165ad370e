"""`python -m lightning_metakd` is `metakd`."""

from lightning_metakd.cli.front_door import console

if __name__ == "__main__":
    console()
