"""Models that the tests write to."""
