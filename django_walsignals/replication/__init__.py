"""Talking to a walsender: the COPY BOTH connection and the commands. psycopg only, no Django."""

from __future__ import annotations
