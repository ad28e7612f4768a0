"""Django's command line on the tests' settings: what tests run as a real process."""

import os
import sys

if __name__ == "__main__":
    # This folder, which Python puts first on the path, would stand in for modules such as `typing`.
    sys.path[0] = os.path.dirname(sys.path[0])  # noqa: PTH120  # pathlib would import what is not to be found here
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
