"""The system checks: each mistake is an error with an id and a hint, and gone when it is mended."""

from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models import Q
from django.test import override_settings

from django_walsignals import conf
from django_walsignals.signals import WalSignal, post_wal_change, post_wal_truncate, wal_gap
from tests.testapp.models import Note

MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "walsignals.E001": (
        {"default": None},
        "WALSIGNALS must be a dict of dicts.",
        'Write WALSIGNALS = {"default": {…}}.',
    ),
    "walsignals.E002": (
        {"default": {"MODLES": []}},
        "WALSIGNALS['default'] has an unknown key 'MODLES': did you mean 'MODELS'?",
        "Known keys: DATABASE, ",
    ),
    "walsignals.E003": (
        {"default": {"BATCH_SIZE": 0}},
        "WALSIGNALS['default']: BATCH_SIZE can't be 0.",
        "It must be a positive whole number.",
    ),
    "walsignals.E004": (
        {"default": {"SLOT": "Capitals"}},
        "WALSIGNALS['default']: 'Capitals' can't name a replication slot.",
        "lower-case letters, digits and the underscore",
    ),
    "walsignals.E006": (
        {"default": {"MODELS": ["testapp.Noet"]}},
        "MODELS names 'testapp.Noet', which no app has: did you mean 'testapp.Note'?",
        "Mend MODELS, EXCLUDE or ROWS",
    ),
}

UNPUBLISHABLE = {
    "an app that is not there": ({"MODELS": ["nowhere.*"]}, "MODELS names 'nowhere.*', which no app has"),
    "a model that is not there": ({"MODELS": ["testapp.Nothing"]}, "MODELS names 'testapp.Nothing', which no app has"),
    "a model of ours": ({"MODELS": ["walsignals.Checkpoint"]}, "walsignals.Checkpoint can't be published"),
    "an excluded model that is not there": ({"EXCLUDE": {"testapp.Nothing": []}}, "EXCLUDE names 'testapp.nothing'"),
    "a condition for a model that is not there": ({"ROWS": {"testapp.Noet": Q()}}, "ROWS names 'testapp.noet'"),
    "an excluded label without an app": ({"EXCLUDE": {"Note": []}}, "EXCLUDE names 'note'"),
    "an excluded field that is not there": (
        {"EXCLUDE": {"testapp.Note": ["text", "txet"]}},
        "EXCLUDE names testapp.note.txet, which is no field of it",
    ),
}


def found(value: Any) -> list[checks.CheckMessage]:
    with override_settings(WALSIGNALS=value):
        return checks.run_checks(tags=["walsignals"])


@pytest.mark.parametrize("identifier", MISTAKES)
def test_a_mistake_is_an_error_with_an_id_and_a_hint(identifier: str) -> None:
    value, message, hint = MISTAKES[identifier]
    (error,) = found(value)
    assert (error.id, error.level, error.msg) == (identifier, checks.ERROR, message)
    assert error.hint is not None
    assert hint in error.hint


def test_a_database_that_is_not_postgresql_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")
    (error,) = found({})
    assert (error.id, error.level) == ("walsignals.W001", checks.WARNING)
    assert error.msg == "WALSIGNALS['default'] reads the database 'default', whose engine is sqlite."
    assert error.hint is not None
    assert "set DATABASE to an alias with django.db.backends.postgresql" in error.hint


@pytest.mark.parametrize("case", UNPUBLISHABLE)
def test_a_model_or_field_that_is_not_there_is_an_error(case: str) -> None:
    keys, message = UNPUBLISHABLE[case]
    (error,) = found({"default": keys})
    assert error.id == "walsignals.E006"
    assert error.msg.startswith(message)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"MODELS": "__all__"},
        {"MODELS": ["testapp.Note", "testapp.note", "auth.*"]},
        {"EXCLUDE": {}},
        {"EXCLUDE": {"testapp.Note": ["text"], "TESTAPP.NOTE": ["id"]}},
        {"EXCLUDE": {"auth.Permission": ["content_type", "content_type_id"]}},
    ],
)
def test_settings_without_a_mistake_have_no_errors(keys: dict[str, Any]) -> None:
    assert found({"default": keys}) == []


def test_without_the_setting_there_is_no_error() -> None:
    assert not hasattr(django_settings, "WALSIGNALS")
    assert checks.run_checks(tags=["walsignals"]) == []


def test_all_mistakes_of_all_streams_are_reported_at_once() -> None:
    value = {"one": {"MODLES": [], "BATCH_SIZE": 0}, "two": {"SLOT": "Capitals"}}
    assert [error.id for error in found(value)] == ["walsignals.E002", "walsignals.E003", "walsignals.E004"]


def test_every_stream_is_looked_at() -> None:
    value = {"one": {"MODELS": ["nowhere.*"]}, "two": {}, "three": {"EXCLUDE": {"nowhere.Model": []}}}
    assert [error.id for error in found(value)] == ["walsignals.E006", "walsignals.E006"]


def test_the_check_command_stops_at_a_mistake() -> None:
    with (
        override_settings(WALSIGNALS={"default": {"BATCH_SIZE": 0}}),
        pytest.raises(CommandError, match=r"\(walsignals.E003\).*BATCH_SIZE can't be 0"),
    ):
        call_command("check")


def test_the_checks_ask_no_database(django_db_blocker: Any) -> None:
    with django_db_blocker.block():
        assert found({"default": {"MODELS": "__all__"}}) == []


class NoteProxy(Note):
    class Meta:
        proxy = True
        app_label = "testapp"


def heard(**kwargs: Any) -> None:
    """Hear of a change."""


def connect(signal: WalSignal = post_wal_change, **filters: Any) -> Any:
    return lambda monkeypatch: signal.connect(heard, **filters)


def as_psycopg(version: str | None) -> Any:
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    return lambda monkeypatch: monkeypatch.setattr(metadata, "version", installed)


@dataclass(frozen=True)
class Case:
    """What makes a check fire: settings of the stream and something done; and what makes it fall silent."""

    identifier: str
    said: str
    hint: str
    keys: dict[str, Any] = field(default_factory=dict)
    mended: dict[str, Any] = field(default_factory=dict)
    do: Any = lambda monkeypatch: None
    undo: Any = None


CASES: dict[str, Case] = {
    "psycopg too old": Case(
        "E005", "psycopg 3.3 or later", "pip install", do=as_psycopg("3.2.13"), undo=as_psycopg("3.3.0")
    ),
    "psycopg not there": Case(
        "E005", "psycopg 3.3 or later", "pip install", do=as_psycopg(None), undo=as_psycopg("3.10.0rc1")
    ),
    "a key that libpq does not know": Case(
        "E007",
        "REPLICATION_OPTIONS has 'HOST', which libpq does not know",
        "such as host, port",
        keys={"REPLICATION_OPTIONS": {"HOST": "db", "port": 5432}},
        mended={"REPLICATION_OPTIONS": {"host": "db", "port": 5432}},
    ),
    "a stream that is not there": Case(
        "W002",
        "tests.test_checks.heard is connected with stream='nowhere'",
        "Write one of 'default'",
        do=connect(sender=Note, stream="nowhere"),
        undo=connect(sender=Note, stream="default", dispatch_uid="moved"),
    ),
    "a stream that is not there, of a gap's receiver": Case(
        "W002", "stream='nowhere'", "add WALSIGNALS['nowhere']", do=connect(wal_gap, stream="nowhere")
    ),
    "a model that is not published": Case(
        "W003",
        "connected to testapp.Note, which no stream publishes",
        "Add 'testapp.Note' to WALSIGNALS['default']['MODELS']",
        keys={"MODELS": ["auth.User"]},
        mended={"MODELS": ["auth.User", "testapp.*"]},
        do=connect(sender=Note),
    ),
    "a model whose truncates are not published": Case(
        "W003",
        "connected to testapp.Note",
        "Add 'testapp.Note'",
        keys={"MODELS": ["auth.User"]},
        mended={"MODELS": "__all__"},
        do=connect(post_wal_truncate, sender="testapp.Note"),
    ),
    "a field that EXCLUDE names": Case(
        "W004",
        "fields= that name text of testapp.Note, and EXCLUDE",
        "Take text out of fields=",
        keys={"EXCLUDE": {"testapp.Note": ["text"]}},
        mended={"EXCLUDE": {}},
        do=connect(sender=Note, fields=["text"]),
    ),
    "a primary key that EXCLUDE names": Case(
        "W004",
        "fields= that name id of testapp.Note",
        "Take id out of fields=",
        keys={"EXCLUDE": {"testapp.Note": ["id"]}},
        mended={"EXCLUDE": {"testapp.Note": ["text"]}},
        do=connect(sender=Note, fields=["pk"]),
    ),
    "a proxy as sender": Case(
        "W005",
        "connected to the proxy testapp.NoteProxy: it hears of every row of testapp.Note",
        "Write sender=Note",
        do=connect(sender=NoteProxy),
        undo=connect(sender=Note),
    ),
    "a proxy in MODELS": Case(
        "W005",
        "MODELS names the proxy testapp.NoteProxy",
        "Write 'testapp.Note'",
        keys={"MODELS": ["testapp.NoteProxy"]},
        mended={"MODELS": ["testapp.Note"]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_check_fires_and_falls_silent(name: str, no_receivers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    case.do(monkeypatch)
    (message,) = found({"default": case.keys})
    assert message.id == f"walsignals.{case.identifier}"
    assert case.said in message.msg
    assert case.hint in (message.hint or "")
    for signal in (post_wal_change, wal_gap) if case.undo else ():
        signal.disconnect(heard, sender=Note)
        signal.disconnect(heard)
    (case.undo or case.do)(monkeypatch)
    mended = {"default": case.mended} if case.undo or case.mended else {"default": {}, "nowhere": {}}
    assert found(mended) == []


def test_a_model_that_is_swapped_out_is_named_with_what_stands_in_for_it(no_receivers: None) -> None:
    with override_settings(AUTH_USER_MODEL="testapp.Note"):
        messages = found({"default": {"MODELS": ["auth.User"]}})
        assert len(messages) == 1, messages
        assert found({"default": {"MODELS": ["testapp.Note"]}}) == []
    (message,) = messages
    assert (message.id, message.hint) == ("walsignals.W006", "Write 'testapp.Note' in place of 'auth.User'.")
    assert found({"default": {"MODELS": ["auth.User"]}}) == []


def test_a_receiver_of_a_model_that_is_swapped_out_is_told_so(no_receivers: None) -> None:
    post_wal_change.connect(heard, sender="auth.User")
    with override_settings(AUTH_USER_MODEL="testapp.Note"):
        (message,) = found({})
    assert (message.id, message.hint) == (
        "walsignals.W003",
        "auth.User is swapped out: write sender='testapp.Note'.",
    )


def test_names_must_differ_where_they_would_meet(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has one list of slots, and each of its databases one of publications."""
    default = settings.DATABASES["default"]
    monkeypatch.setitem(settings.DATABASES, "archive", {**default, "NAME": "archive"})
    monkeypatch.setitem(settings.DATABASES, "far", {**default, "HOST": "far.example.org"})
    same = {"SLOT": "one", "PUBLICATION": "one"}

    def with_other(database: str) -> list[str]:
        settings.WALSIGNALS = {"a": same, "b": {**same, "DATABASE": database}}
        return [problem.message for problem in conf.problems()]

    both = "WALSIGNALS['a'] and WALSIGNALS['b'] have the same"
    assert with_other("default") == [f"{both} SLOT 'one'.", f"{both} PUBLICATION 'one'."]
    assert with_other("archive") == [f"{both} SLOT 'one'."]
    assert with_other("far") == []
