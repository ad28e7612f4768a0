"""The admin: checkpoints to look at, not to edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from django_walsignals.models import Checkpoint

if TYPE_CHECKING:
    CheckpointModelAdmin = admin.ModelAdmin[Checkpoint]
else:  # ModelAdmin takes no type argument at run time
    CheckpointModelAdmin = admin.ModelAdmin


@admin.register(Checkpoint)
class CheckpointAdmin(CheckpointModelAdmin):
    """Streams and their positions, read-only: a position moved by hand would lose or repeat changes."""

    list_display = ("stream", "lsn", "commit_lsn", "ordinal", "slot", "updated_at")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the consumer makes checkpoints."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the consumer moves checkpoints."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: without its checkpoint a stream would start anew."""
        return False
