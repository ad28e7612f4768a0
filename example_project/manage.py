"""The shop's command line. Without DATABASE_URL it brings its own PostgreSQL for as long as the command runs."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)  # the checkout, so that `example_project.shop` has one name only
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.config.settings")

    from django.core.management import execute_from_command_line

    from example_project import embedded

    with embedded.database():
        execute_from_command_line(sys.argv)
