"""Hypothesis for these tests: no time limit per example, since a loaded machine must not fail a test."""

from hypothesis import settings

settings.register_profile("walsignals", deadline=None)
settings.load_profile("walsignals")
