"""The demo's command line: options in, a server and Django up, one call, the exit code out."""

import argparse
import os
import sys

import django

from example_project import embedded
from example_project.postgres import PostgresError


def main() -> int:
    """Run the demo; 0 if every change that was written has been received."""
    parser = argparse.ArgumentParser(prog="python -m example_project.demo", description="Watch a shop's changes.")
    parser.add_argument("--seconds", type=float, help="end after this time (default: at Ctrl-C)")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.config.settings")
    with embedded.database():
        django.setup()
        from example_project.demo.show import run

        return run(options.seconds)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PostgresError as exc:
        sys.exit(str(exc))
