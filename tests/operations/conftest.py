"""Tables of the binding's tests are what the operations are tried on, too."""

from tests.binding.conftest import tables, undo

__all__ = ["tables", "undo"]
