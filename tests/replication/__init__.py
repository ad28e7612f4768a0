"""Talking to a walsender: commands, parameters, errors and the connection."""
