"""``python -m onnx_shapprune`` and the console command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends with 130, whenever it comes."""
    try:
        from .cli import cli

        cli(prog_name="onnx-shapprune")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
