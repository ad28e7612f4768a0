"""The settings: what holds with none at all, what each key takes, what is refused, and that tests may override them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db.models import Q
from django.test import override_settings

from django_walsignals import conf
from django_walsignals.conf import StreamConfig, get_stream, problems, stream_aliases
from django_walsignals.exceptions import ConfigurationError

KEYS = (
    "DATABASE, CHECKPOINT_DATABASE, SLOT, PUBLICATION, MODELS, EXCLUDE, ROWS, REPLICA_IDENTITY, REPLICATION_OPTIONS, "
    "BATCH_SIZE, MAX_ATTEMPTS, ON_ERROR"
)

#: For each key a value, and what the stream then has.
GIVEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "DATABASE": ("replica", {"database": "replica", "checkpoint_database": "replica"}),
    "CHECKPOINT_DATABASE": ("replica", {"checkpoint_database": "replica"}),
    "SLOT": ("a_slot_1", {"slot": "a_slot_1"}),
    "PUBLICATION": ('The "Pub" é', {"publication": 'The "Pub" é'}),
    "MODELS": (["shop.Order", "auth.*"], {"models": ("shop.Order", "auth.*")}),
    "EXCLUDE": ({"Shop.Order": ("card",)}, {"exclude": {"shop.order": frozenset({"card"})}}),
    "ROWS": ({"Shop.Order": Q(archived=False)}, {"rows": {"shop.order": Q(archived=False)}}),
    "REPLICA_IDENTITY": ("keep", {"replica_identity": "keep"}),
    "REPLICATION_OPTIONS": ({"host": "db"}, {"replication_options": {"host": "db"}}),
    "BATCH_SIZE": (1, {"batch_size": 1}),
    "MAX_ATTEMPTS": (1, {"max_attempts": 1}),
    "ON_ERROR": ("stop", {"on_error": "stop"}),
}

REFUSED: dict[str, tuple[Any, ...]] = {
    "DATABASE": ("nowhere", None, 1, ["default"], {}),
    "CHECKPOINT_DATABASE": ("nowhere", "", 1, ["default"]),
    "SLOT": ("Capitals", "with-dash", "with space", 'quo"te', "é", "", "x" * 64, 7, ["slot"]),
    "PUBLICATION": ("", "x" * 64, "é" * 32, "nul\0", 7),
    "MODELS": ("shop.Order", "all", "__ALL__", ["Order"], ["a.b.c"], [7], {"shop.Order"}, 7),
    "EXCLUDE": (
        "auth.User",
        ["auth.User"],
        {"auth.User": "password"},
        {7: ["a"]},
        {"auth.User": [7]},
        {"auth.User": [["a"]]},
        None,
    ),
    "ROWS": (None, Q(a=1), [Q(a=1)], {"shop.Order": {"a": 1}}, {"shop.Order": None}, {7: Q(a=1)}),
    "REPLICA_IDENTITY": ("FULL", "default", None, ["full"]),
    "REPLICATION_OPTIONS": (None, "host=db", ["host"]),
    "BATCH_SIZE": (0, -1, 1.5, "1000", None, True),
    "MAX_ATTEMPTS": (0, -1, 1.5, "5", None, True),
    "ON_ERROR": ("ignore", "STOP", None, ["stop"]),
}


@pytest.fixture(autouse=True)
def second_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(django_settings.DATABASES, "replica", {})


def configured(**keys: Any) -> StreamConfig:
    with override_settings(WALSIGNALS={"default": keys}):
        return get_stream()


def messages(value: Any) -> list[str]:
    with override_settings(WALSIGNALS=value):
        return [problem.message for problem in problems()]


@pytest.mark.parametrize("value", [{}, {"default": {}}])
def test_without_settings_there_is_one_stream_with_the_documented_defaults(settings: Any, value: Any) -> None:
    settings.WALSIGNALS = value
    assert_documented_defaults()


def test_without_the_setting_there_is_one_stream_with_the_documented_defaults(settings: Any) -> None:
    assert not hasattr(settings, "WALSIGNALS")
    assert_documented_defaults()


def assert_documented_defaults() -> None:
    assert stream_aliases() == ("default",)
    assert list(problems()) == []
    assert get_stream() == StreamConfig(
        alias="default",
        database="default",
        checkpoint_database="default",
        slot="walsignals_default",
        publication="walsignals_default",
        models=None,
        exclude={"auth.user": frozenset({"password"})},
        rows={},
        replica_identity="full",
        replication_options={},
        batch_size=1000,
        max_attempts=5,
        on_error="dead_letter",
    )


def test_every_key_is_tried_here() -> None:
    assert list(GIVEN) == list(REFUSED) == KEYS.split(", ") == list(conf._DEFAULTS)


@pytest.mark.parametrize("key", GIVEN)
def test_a_key_changes_what_it_names_and_nothing_else(key: str) -> None:
    value, changed = GIVEN[key]
    expected = {field.name: getattr(configured(), field.name) for field in dataclasses.fields(StreamConfig)} | changed
    assert configured(**{key: value}) == StreamConfig(**expected)
    assert messages({"default": {key: value}}) == []


@pytest.mark.parametrize("key", ["SLOT", "PUBLICATION", "CHECKPOINT_DATABASE", "MODELS"])
def test_none_means_the_default(key: str) -> None:
    assert configured(**{key: None}) == configured()


def test_all_models_may_be_asked_for() -> None:
    assert configured(MODELS="__all__").models == "__all__"


@pytest.mark.parametrize("models", [[], ["a.B"], ("a.B",)])
def test_models_are_kept_as_a_tuple(models: Any) -> None:
    assert configured(MODELS=models).models == tuple(models)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_value_that_cannot_be_is_named_with_what_it_must_be(key: str, value: Any) -> None:
    with override_settings(WALSIGNALS={"default": {key: value}}):
        (problem,) = problems()
        assert problem.message.startswith("WALSIGNALS['default']")
        assert repr(value) in problem.message
        assert key in problem.message + problem.hint
        assert problem.hint
        with pytest.raises(ConfigurationError) as caught:
            get_stream()
    assert str(caught.value) == f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("DATABSE", "DATABASE"),
        ("slot", "SLOT"),
        ("Batch_Size", "BATCH_SIZE"),
        ("MODEL", "MODELS"),
        ("REPLICATION_OPTION", "REPLICATION_OPTIONS"),
        ("MAX_ATEMPTS", "MAX_ATTEMPTS"),
    ],
)
def test_an_unknown_key_is_met_with_the_one_that_was_meant(key: str, meant: str) -> None:
    with override_settings(WALSIGNALS={"default": {key: None}}):
        (problem,) = problems()
    assert problem.kind == "key"
    assert problem.message == f"WALSIGNALS['default'] has an unknown key {key!r}: did you mean {meant!r}?"
    assert problem.hint == f"Known keys: {KEYS}."


@pytest.mark.parametrize("key", ["XYZ", "", 7, None, ("A",)])
def test_an_unknown_key_like_none_is_met_with_those_that_there_are(key: Any) -> None:
    with override_settings(WALSIGNALS={"default": {key: None}}):
        (problem,) = problems()
    assert problem.message == f"WALSIGNALS['default'] has an unknown key {key!r}."
    assert problem.hint == f"Known keys: {KEYS}."


def test_every_problem_of_every_stream_is_found() -> None:
    found = messages({"one": {"SLOT": "A", "BATCH_SIZE": 0}, "two": {"WRONG": 1}})
    assert [message.split(" ")[0].rstrip(":") for message in found] == ["WALSIGNALS['one']"] * 2 + ["WALSIGNALS['two']"]


def test_the_problems_of_one_stream_do_not_stop_another() -> None:
    with override_settings(WALSIGNALS={"bad": {"WRONG": 1}, "good": {}}):
        assert get_stream("good").slot == "walsignals_good"
        with pytest.raises(ConfigurationError, match="WRONG"):
            get_stream("bad")


@pytest.mark.parametrize(
    "value", [[], ["default"], "default", 7, {"default": None}, {"default": []}, {"default": "x"}, {5: {}}]
)
def test_a_setting_of_another_shape_is_refused_wherever_it_is_read(value: Any) -> None:
    with override_settings(WALSIGNALS=value):
        (problem,) = problems()
        assert problem.kind == "shape"
        with pytest.raises(ConfigurationError, match="WALSIGNALS must be a dict of dicts"):
            get_stream()
        with pytest.raises(ConfigurationError, match="WALSIGNALS must be a dict of dicts"):
            stream_aliases()


class TestStreams:
    VALUE: Mapping[str, Any] = {"default": {}, "audit": {"DATABASE": "replica"}}

    def test_each_stream_has_names_of_its_own(self, settings: Any) -> None:
        settings.WALSIGNALS = self.VALUE
        assert stream_aliases() == ("default", "audit")
        assert get_stream().slot == "walsignals_default"
        audit = get_stream("audit")
        assert (audit.alias, audit.slot, audit.publication) == ("audit", "walsignals_audit", "walsignals_audit")
        assert (audit.database, audit.checkpoint_database) == ("replica", "replica")

    def test_an_unknown_stream_is_met_with_the_one_that_was_meant(self, settings: Any) -> None:
        settings.WALSIGNALS = self.VALUE
        with pytest.raises(
            ConfigurationError, match=r"There is no stream 'audits' in WALSIGNALS: did you mean 'audit'\?"
        ):
            get_stream("audits")

    def test_the_default_stream_is_not_there_unless_it_is_named(self, settings: Any) -> None:
        settings.WALSIGNALS = {"audit": {}}
        with pytest.raises(ConfigurationError, match="There is no stream 'default'"):
            get_stream()

    def test_an_alias_that_cannot_name_a_slot_asks_for_one(self, settings: Any) -> None:
        settings.WALSIGNALS = {"Audit-1": {}}
        (problem,) = problems()
        assert problem.kind == "slot"
        assert "'walsignals_Audit-1'" in problem.message
        assert "set SLOT" in problem.hint
        settings.WALSIGNALS = {"Audit-1": {"SLOT": "audit_1"}}
        assert get_stream("Audit-1").publication == "walsignals_Audit-1"


class TestReading:
    def test_a_stream_is_read_once(self) -> None:
        assert get_stream() is get_stream()

    def test_an_overridden_setting_is_read_again_and_so_is_the_old_one(self) -> None:
        before = get_stream()
        with override_settings(WALSIGNALS={"default": {"BATCH_SIZE": 7}}):
            assert get_stream().batch_size == 7
        assert get_stream() == before

    def test_another_setting_forgets_nothing(self, settings: Any) -> None:
        before = get_stream()
        settings.LANGUAGE_CODE = "de"
        assert get_stream() is before

    def test_an_error_is_not_remembered(self) -> None:
        value = {"default": {"BATCH_SIZE": 0}}
        with override_settings(WALSIGNALS=value):
            with pytest.raises(ConfigurationError):
                get_stream()
            value["default"]["BATCH_SIZE"] = 1
            assert get_stream().batch_size == 1

    def test_the_excluded_password_is_that_of_the_user_model(self) -> None:
        before = get_stream().exclude
        with override_settings(AUTH_USER_MODEL="testapp.Note"):
            assert get_stream().exclude == {"testapp.note": frozenset({"password"})}
        assert get_stream().exclude == before

    def test_an_exclude_of_ones_own_replaces_the_default(self) -> None:
        assert configured(EXCLUDE={}).exclude == {}


class TestFrozen:
    @pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(StreamConfig)])
    def test_no_field_can_be_assigned(self, field: str) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(get_stream(), field, None)

    @pytest.mark.parametrize("field", ["exclude", "replication_options"])
    def test_no_mapping_can_be_changed(self, field: str) -> None:
        with pytest.raises(TypeError):
            getattr(get_stream(), field)["x"] = "y"

    def test_what_the_setting_holds_may_change_without_changing_the_stream(self) -> None:
        options, models = {"host": "db"}, ["a.B"]
        config = configured(REPLICATION_OPTIONS=options, MODELS=models)
        options["host"], models[0] = "other", "c.D"
        assert (config.replication_options["host"], config.models) == ("db", ("a.B",))
