"""From wire rows to Django: which model a table is, and how its columns become field values."""

from __future__ import annotations
