"""The dead letters in the admin: read-only, but for the actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.options import ModelAdmin
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_walsignals.delivery import letters, replay
from django_walsignals.exceptions import WalSignalsError
from django_walsignals.models import DeadLetter

if TYPE_CHECKING:
    DeadLetterModelAdmin = ModelAdmin[DeadLetter]
else:  # ModelAdmin takes no type argument at run time
    DeadLetterModelAdmin = ModelAdmin

_DIFF = """<table><thead><tr><th scope="col">{}</th><th scope="col">{}</th><th scope="col">{}</th></tr></thead>
<tbody>{}</tbody></table>{}"""


@admin.register(DeadLetter)
class DeadLetterAdmin(DeadLetterModelAdmin):
    """Dead letters: read-only, but for the actions. Replaying takes the right to change them, discarding to delete."""

    list_display = (
        "id",
        "stream",
        "model",
        "operation_or_kind",
        "pk_text",
        "receiver",
        "error_line",
        "attempts",
        "last_failed_at",
    )
    list_filter = ("stream", "kind", "operation", "model", "receiver", "last_failed_at")
    search_fields = ("=change_id", "=pk_text", "model", "receiver", "error")
    actions = ("replay_selected", "delete_selected")
    show_full_result_count = False
    fields = (
        ("stream", "change_id"),
        ("model", "pk_text", "operation_or_kind"),
        "receiver",
        ("attempts", "first_failed_at", "last_failed_at"),
        "error",
        "difference",
        "formatted_traceback",
    )
    readonly_fields = ("operation_or_kind", "difference", "formatted_traceback")

    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, outside ATOMIC_REQUESTS: a replay commits transactions of its own."""
        return super().changelist_view(request, extra_context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Leave out of a list what may be large, and what only the page of one letter shows."""
        return super().get_queryset(request).defer("payload", "traceback")

    @admin.display(description=_("operation"), ordering="operation")
    def operation_or_kind(self, letter: DeadLetter) -> str:
        """Say what it is that the receiver could not take."""
        return letter.operation or letter.get_kind_display()

    @admin.display(description=_("error"), ordering="error")
    def error_line(self, letter: DeadLetter) -> str:
        """Show the error's first line."""
        return letter.error.partition("\n")[0][:200]

    @admin.display(description=_("difference"))
    def difference(self, letter: DeadLetter) -> SafeString:
        """Show the fields before and after the change, decoded by today's code."""
        shown = letters.shown_diff(letter)
        body = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>', shown.rows)
        note = _("Shown as the database wrote it: today's code can't decode it.") if shown.is_raw else ""
        later = _("Later changes of the same row have been delivered meanwhile.")
        return format_html(_DIFF, _("field"), _("old"), _("new"), body, format_html("<p>{} {}</p>", note, later))

    @admin.display(description=_("traceback"))
    def formatted_traceback(self, letter: DeadLetter) -> SafeString:
        """Show the traceback as Python wrote it."""
        return format_html("<pre>{}</pre>", letter.traceback)

    @admin.action(description=_("Replay selected dead letters"), permissions=["change"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Run the receivers that failed again; a letter ends when its receiver succeeds."""
        replayed = 0
        try:
            for result in replay.replay(self._writable(queryset)):
                replayed += result.outcome is replay.Outcome.REPLAYED
                if result.is_kept:
                    self.message_user(request, str(result), messages.ERROR)
        except WalSignalsError as exc:
            self.message_user(request, str(exc), messages.ERROR)
        if replayed:
            self.message_user(request, _("%d replayed.") % replayed, messages.SUCCESS)

    @admin.action(description=_("Discard selected dead letters"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        """Call the deletion, with Django's page that asks, what it is; its own action of this name gives way."""
        return delete_selected(self, request, queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[Any], dict[Any, int], set[Any], Any]:
        """List what is discarded: nothing depends on a letter, and the right was asked for already."""
        listed = [str(letter) for letter in objs]
        return listed, {self.opts.verbose_name_plural: len(listed)}, set(), []

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Discard, but for those that are being replayed."""
        replay.discard(self._writable(queryset))

    def _writable(self, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Take the rows from where they can be locked, which a replica that the list is read from is not."""
        return queryset.using(router.db_for_write(self.model))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the consumer writes dead letters."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse for one letter, which is read-only; in general it is the right to replay."""
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse for one letter; in general it is the right to discard."""
        return obj is None and super().has_delete_permission(request)
