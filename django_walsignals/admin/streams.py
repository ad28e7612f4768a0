"""The streams in the admin: the checkpoints, and how each stream is doing at the moment somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.contrib import admin, messages
from django.contrib.admin.options import ModelAdmin
from django.db import router
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_walsignals.conf import stream_aliases
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.status import StreamStatus, read_status
from django_walsignals.status.units import show_bytes, show_seconds
from django_walsignals.status.wording import consumer, headroom

if TYPE_CHECKING:
    CheckpointModelAdmin = ModelAdmin[Checkpoint]
else:  # ModelAdmin takes no type argument at run time
    CheckpointModelAdmin = ModelAdmin


@admin.register(Checkpoint)
class StreamAdmin(CheckpointModelAdmin):
    """Streams as they are now, read-only: a position moved by hand would lose or repeat changes."""

    list_display = (
        "stream",
        "state",
        "lag_in_bytes",
        "lag_in_time",
        "wal_kept_in_bytes",
        "consumer_process",
        "slot",
        "dead_letters",
        "last_error_line",
    )
    show_full_result_count = False
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "stream",
                    "state",
                    "problem",
                    "consumer",
                    "lag_in_bytes",
                    "lag_in_time",
                    "wal_kept",
                    "dead_letters",
                )
            },
        ),
        (_("Last error"), {"fields": ("last_error", "last_error_at")}),
        (_("Position"), {"fields": ("lsn", "commit_lsn", "ordinal", "committed_at", "updated_at", "flushed")}),
        (
            _("What the position belongs to"),
            {"fields": ("slot", "wal_status", "system_identifier", "timeline", "publication", "created_at")},
        ),
    )
    readonly_fields = (
        "state",
        "problem",
        "consumer",
        "lag_in_bytes",
        "lag_in_time",
        "wal_kept",
        "dead_letters",
        "flushed",
        "wal_status",
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, and above it the configured streams that are not in it."""
        if self.has_view_permission(request):
            for missing in self._not_started():
                self.message_user(request, missing, messages.WARNING)
        return super().changelist_view(request, extra_context)

    def _not_started(self) -> Iterator[str]:
        rows = Checkpoint.objects.using(router.db_for_read(Checkpoint))
        for alias in sorted({*stream_aliases()}.difference(rows.values_list("stream", flat=True))):
            live = _read(alias)
            if live is not None:
                yield _("Stream %(stream)s (%(state)s): %(problem)s") % {
                    "stream": alias,
                    "state": live.state.words,
                    "problem": live.problem,
                }

    @admin.display(description=_("state"))
    def state(self, checkpoint: Checkpoint) -> str:
        """Say how the stream is doing, in a word."""
        live = _live(checkpoint)
        return str(_("not in WALSIGNALS")) if live is None else live.state.words

    @admin.display(description=_("problem"))
    def problem(self, checkpoint: Checkpoint) -> str | None:
        """Say what is wrong and what mends it."""
        live = _live(checkpoint)
        return None if live is None else live.problem or None

    @admin.display(description=_("lag"))
    def lag_in_bytes(self, checkpoint: Checkpoint) -> str | None:
        """Say how much log lies before the consumer."""
        live = _live(checkpoint)
        return None if live is None or live.lag_bytes is None else _unbroken(show_bytes(live.lag_bytes))

    @admin.display(description=_("behind"))
    def lag_in_time(self, checkpoint: Checkpoint) -> str | None:
        """Say how old the oldest change that is not done can be."""
        live = _live(checkpoint)
        return None if live is None or live.lag_seconds is None else _unbroken(show_seconds(live.lag_seconds))

    @admin.display(description=_("WAL kept"))
    def wal_kept_in_bytes(self, checkpoint: Checkpoint) -> str | None:
        """Say how much log the slot keeps, of how much it may."""
        live = _live(checkpoint)
        if live is None or live.retained_bytes is None:
            return None
        kept = _unbroken(show_bytes(live.retained_bytes))
        if live.safe_wal_bytes is None:
            return kept
        return str(_("%(kept)s, %(left)s left") % {"kept": kept, "left": _unbroken(show_bytes(live.safe_wal_bytes))})

    @admin.display(description=_("consumer"))
    def consumer_process(self, checkpoint: Checkpoint) -> str | None:
        """Name the process that consumes."""
        live = _live(checkpoint)
        return f"pid {live.consumer_pid} on {live.consumer_host}" if live and live.active else None

    @admin.display(description=_("WAL kept"))
    def wal_kept(self, checkpoint: Checkpoint) -> str | None:
        """Say how much log the slot keeps, and how much more it may."""
        live = _live(checkpoint)
        if live is None or not live.wal_status:
            return None
        return f"{show_bytes(live.retained_bytes)}; {headroom(live)}"

    @admin.display(description=_("consumer"))
    def consumer(self, checkpoint: Checkpoint) -> str | None:
        """Say who consumes, and when it was last heard of."""
        live = _live(checkpoint)
        return None if live is None or live.read_at is None else consumer(live)

    @admin.display(description=_("dead letters"))
    def dead_letters(self, checkpoint: Checkpoint) -> str | int:
        """Count the dead letters, with a link to their list."""
        live = _live(checkpoint)
        if live is None or not live.dead_letters or not self.admin_site.is_registered(DeadLetter):
            return live.dead_letters or 0 if live else 0
        url = reverse("admin:walsignals_deadletter_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?stream={}">{}</a>', url, quote(checkpoint.stream), live.dead_letters)

    @admin.display(description=_("last error"), ordering="last_error_at")
    def last_error_line(self, checkpoint: Checkpoint) -> str | None:
        """Show the beginning of the last error."""
        return checkpoint.last_error[:80] or None

    @admin.display(description=_("the server's log ends at"))
    def flushed(self, checkpoint: Checkpoint) -> str | None:
        """Show up to where the server has written."""
        live = _live(checkpoint)
        return None if live is None or live.flushed is None else str(live.flushed)

    @admin.display(description=_("slot's WAL"))
    def wal_status(self, checkpoint: Checkpoint) -> str | None:
        """Show what the server says of the slot's log."""
        live = _live(checkpoint)
        return None if live is None else live.wal_status or None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the consumer makes checkpoints."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the consumer moves checkpoints."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: without its checkpoint a stream would start anew."""
        return False


def _live(checkpoint: Checkpoint) -> StreamStatus | None:
    """Read a row's live status once; None for a stream that the settings no longer have."""
    known = vars(checkpoint)
    if "live_status" not in known:
        known["live_status"] = _read(checkpoint.stream)
    status: StreamStatus | None = known["live_status"]
    return status


def _unbroken(text: str) -> str:
    """Keep a number and its unit in a line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _read(alias: str) -> StreamStatus | None:
    try:
        return read_status(alias)
    except ConfigurationError:
        return None
