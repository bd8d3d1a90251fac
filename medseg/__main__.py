"""`python -m medseg`: the command line, where the `medseg` script is not on the path."""

from __future__ import annotations

from medseg.cli.main import run

if __name__ == "__main__":
    run()
