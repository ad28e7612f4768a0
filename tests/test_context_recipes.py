"""The documentation's recipes, as users copy them: Celery, management commands, an outbox without a table."""

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from django.core import mail
from django.core.management import BaseCommand, call_command
from django.db import connections, transaction
from django.dispatch import receiver

from django_walsignals import context, emit_message, wal_message
from django_walsignals.testing import WalStream
from tests.ledger.models import Effect
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


# --8<-- celery
class ContextTask(Task):
    """A task whose changes carry the context of whoever sent it, and the task's own name and id."""

    def apply_async(self, args=None, kwargs=None, **options):
        headers = {**(options.pop("headers", None) or {}), "walsignals_context": context.current()}
        return super().apply_async(args, kwargs, headers=headers, **options)

    def __call__(self, *args, **kwargs):
        sent = (self.request.headers or {}).get("walsignals_context") or self.request.get("walsignals_context") or {}
        with context(**{**sent, "task": self.name, "task_id": self.request.id}):
            return super().__call__(*args, **kwargs)


# --8<-- command
class ImportCommand(BaseCommand):
    """A command whose changes say that it made them."""

    def execute(self, *args, **options):
        with context(command=type(self).__module__.rpartition(".")[2]):
            return super().execute(*args, **options)

    def handle(self, *args, **options):
        Note.objects.create(text="imported")


# --8<-- outbox: the sending side
def take_order(text):
    with transaction.atomic():
        note = Note.objects.create(text=text)
        emit_message("shop.mail", json.dumps({"template": "thanks", "note": note.pk}))


# --8<-- outbox: the receiving side, in walsignals.py
def send_mail(*, prefix, content, **kwargs):
    if prefix == "shop.mail":
        asked = json.loads(content)
        mail.send_mail(asked["template"], f"note {asked['note']}", "shop@example.com", ["you@example.com"])


# --8<-- end


@pytest.fixture
def notes(transactional_db: None, no_receivers: None) -> Iterator[WalStream]:
    with WalStream() as stream:
        stream.listen(Note)
        yield stream


@pytest.fixture
def app():
    made = Celery("tests", broker="memory://", backend="cache+memory://", task_cls=ContextTask, set_as_current=False)
    yield made
    made.close()


def heard(stream):
    return [dict(change.transaction.context) for change in stream.consume()]


class TestCelery:
    def test_eager(self, notes, app):
        app.conf.task_always_eager = True

        @app.task(name="write", shared=False)
        def write():
            Note.objects.create(text="a")

        with context(user=7):
            sent = write.delay()
        assert heard(notes) == [{"user": 7, "task": "write", "task_id": sent.id}]
        assert context.current() == {}

    def test_worker(self, notes, app, monkeypatch):
        @app.task(name="write", shared=False)
        def write():
            Note.objects.create(text="a")
            connections.close_all()

        # Celery would set up all logging of this process for itself, and leave it so.
        monkeypatch.setattr(app.log, "setup", lambda *args, **kwargs: None)
        with start_worker(app, perform_ping_check=False, pool="solo"):
            with context(user=7):
                sent = write.delay()
            write.delay().get(timeout=20)
        assert [(found.get("user"), found["task"]) for found in heard(notes)] == [(7, "write"), (None, "write")]
        assert sent.successful()


def test_command(notes):
    call_command(ImportCommand())
    assert heard(notes) == [{"command": "test_context_recipes"}]
    assert context.current() == {}


class TestOutbox:
    def test_mail_is_sent_for_what_was_committed(self, notes):
        receiver(wal_message)(send_mail)
        with suppress(LookupError), transaction.atomic():
            take_order("gone")
            raise LookupError
        take_order("a")
        notes.consume()
        assert [letter.subject for letter in mail.outbox] == ["thanks"]
        assert mail.outbox[0].body == f"note {Note.objects.get().pk}"

    def test_effects_in_the_database_happen_exactly_once(self, stream: Stream):
        """A receiver that fails after its effect, twice: the effect of the third attempt is the only one."""
        attempts = []

        def book(*, prefix, content, **kwargs):
            Effect.objects.create(text=json.loads(content)["template"])
            attempts.append(prefix)
            if len(attempts) < 3:
                raise LookupError

        stream.listen(Note)
        stream.set_up()
        wal_message.connect(book)
        take_order("a")
        stream.consume()
        stream.consume()
        assert attempts == ["shop.mail"] * 3
        assert [*Effect.objects.values_list("text", flat=True)] == ["thanks"]
