"""Effects of receivers, kept apart from the models whose changes are consumed."""
