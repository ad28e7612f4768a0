"""The wire, without a socket: LSNs, CopyData frames and pgoutput messages.

Nothing here does I/O, knows Django or psycopg, logs, or holds state: bytes in, frozen types out.
"""

from __future__ import annotations
