"""Run as a script in a project's folder: executes the Python blocks of a page one after the other, in one namespace.

Each line of stdin is a block in JSON; each line of stdout says what it printed and how it failed. The namespace starts
as that of ``manage.py shell`` does: with the app's models.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from contextlib import redirect_stdout
from typing import Any


def main() -> None:
    """Serve until stdin ends."""
    sys.path[0] = os.getcwd()  # noqa: PTH109  # this file's folder would shadow modules
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    namespace = start()
    for line in sys.stdin:
        answers.write(json.dumps(execute(json.loads(line), namespace)) + "\n")


def start() -> dict[str, Any]:
    """Set Django up, and make the namespace."""
    import django

    django.setup()
    from django.apps import apps

    models = {model.__name__: model for model in apps.get_app_config("shop").get_models()}
    return {"__name__": "__console__", **models}


def execute(code: str, namespace: dict[str, Any]) -> dict[str, str]:
    """Execute a block."""
    printed, failure = io.StringIO(), ""
    with redirect_stdout(printed):
        try:
            exec(compile(code, "<block>", "exec"), namespace)
        except BaseException:  # noqa: BLE001  # whatever it is, the page's test says it
            failure = traceback.format_exc()
    return {"printed": printed.getvalue(), "failure": failure}


if __name__ == "__main__":
    main()
