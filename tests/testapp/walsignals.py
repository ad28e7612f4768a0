"""Receivers for consumers in processes of their own: the module that a test names in the environment."""

import os
from importlib import import_module

if module := os.environ.get("TEST_RECEIVERS"):
    import_module(module)
