"""From frames to receivers, and from receivers to the checkpoint: everything that keeps the promises."""

from __future__ import annotations
