"""The checkpoint: how far each stream's changes have taken effect."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_walsignals.fields import LSNField


class Checkpoint(models.Model):
    """How far a stream's changes have taken effect: one row a stream, written in the same transaction as the effects.

    Everything committed before ``lsn`` is done, and of the transaction whose commit is at ``commit_lsn`` (0/0: none
    is in hand) the first ``ordinal`` changes. The facts beside it say which server, slot and publication the position
    belongs to, so that a position is never used where it means something else. The rest is for whoever looks after
    the stream: who consumes it, since when, and what went wrong last (see ``status``). Nothing is written while a
    stream is idle.
    """

    stream = models.CharField(_("stream"), max_length=63, primary_key=True)
    lsn = LSNField(_("position"), help_text=_("End of the last whole transaction that has taken effect."))
    commit_lsn = LSNField(
        _("transaction in hand"), default=0, help_text=_("Commit of a transaction of which only a part is done.")
    )
    ordinal = models.BigIntegerField(_("changes of it done"), default=0)
    system_identifier = models.CharField(_("system identifier"), max_length=20)
    timeline = models.BigIntegerField(_("timeline"))
    slot = models.CharField(_("replication slot"), max_length=63)
    publication = models.JSONField(
        _("publication"), default=dict, help_text=_("Which tables it held, and since which of its changes.")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)
    committed_at = models.DateTimeField(
        _("applied up to"), null=True, help_text=_("When what lies just before the position was committed.")
    )
    consumer_pid = models.BigIntegerField(_("consumer's pid"), null=True)
    consumer_host = models.CharField(_("consumer's host"), max_length=255, default="", db_default="")
    backend_pid = models.BigIntegerField(_("consumer's database session"), null=True)
    started_at = models.DateTimeField(_("session started"), null=True)
    last_error = models.TextField(_("last error"), default="", db_default="")
    last_error_at = models.DateTimeField(_("time of the last error"), null=True)

    class Meta:  # noqa: D106  # Django's own
        verbose_name = _("stream")
        verbose_name_plural = _("streams")

    def __str__(self) -> str:
        return f"{self.stream} at {self.lsn}"


class DeadLetter(models.Model):
    """Something that a receiver could not take, after all its attempts: kept with the checkpoint that passed over it.

    ``payload`` holds what came through the WAL, not decoded, so that a later version of the code can decode it again
    (see ``delivery.letters``). Changes of the same row that came later have been delivered meanwhile.
    """

    class Kind(models.TextChoices):
        """What it is that the receiver could not take."""

        CHANGE = "change", _("change")
        TRUNCATE = "truncate", _("truncate")
        MESSAGE = "message", _("message")

    stream = models.CharField(_("stream"), max_length=63)
    change_id = models.CharField(_("change"), max_length=40, help_text=_("Commit LSN and ordinal."))
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices, default=Kind.CHANGE)
    model = models.CharField(_("model"), max_length=201, blank=True)
    pk_text = models.TextField(_("primary key"), blank=True)
    operation = models.CharField(_("operation"), max_length=8, blank=True)
    receiver = models.TextField(_("receiver"), help_text=_("Its dotted path."))
    payload = models.JSONField(_("payload"))
    error = models.TextField(_("error"))
    traceback = models.TextField(_("traceback"))
    attempts = models.PositiveIntegerField(_("attempts"))
    first_failed_at = models.DateTimeField(_("first failed"))
    last_failed_at = models.DateTimeField(_("last failed"))

    class Meta:  # noqa: D106  # Django's own
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["stream", "change_id", "model", "receiver"], name="walsignals_one_dead_letter"
            ),
        )

    def __str__(self) -> str:
        return f"{self.receiver} on {self.change_id}"
