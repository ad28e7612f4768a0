"""What a stream needs on the server: what should be, what is, and the SQL between."""

from __future__ import annotations
