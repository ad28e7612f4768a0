"""The system checks: each mistake is an error with an id and a hint, and gone when it is mended."""

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

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
        "Mend MODELS or EXCLUDE",
    ),
}

UNPUBLISHABLE = {
    "an app that is not there": ({"MODELS": ["nowhere.*"]}, "MODELS names 'nowhere.*', which no app has"),
    "a model that is not there": ({"MODELS": ["testapp.Nothing"]}, "MODELS names 'testapp.Nothing', which no app has"),
    "a model of ours": ({"MODELS": ["walsignals.Checkpoint"]}, "walsignals.Checkpoint can't be published"),
    "an excluded model that is not there": ({"EXCLUDE": {"testapp.Nothing": []}}, "EXCLUDE names 'testapp.nothing'"),
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
