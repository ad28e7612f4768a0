"""Connecting: as with any of Django's model signals, and with filters."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.apps.registry import Apps
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.checks.model_checks import _check_lazy_references
from django.db import models
from django.db.models.signals import ModelSignal
from django.dispatch import receiver
from django.test.utils import isolate_apps

from django_walsignals.changes import Operation
from django_walsignals.signals import (
    Connected,
    Filter,
    Receiver,
    WalSignal,
    post_wal_change,
    post_wal_truncate,
    wal_message,
)
from tests.testapp.models import Note


def heard(**kwargs: Any) -> str:
    return "heard"


def heard_too(**kwargs: Any) -> str:
    return "heard too"


async def heard_async(**kwargs: Any) -> str:
    return "heard async"


class Listener:
    def hear(self, **kwargs: Any) -> str:
        return "method"

    def __call__(self, **kwargs: Any) -> str:
        return "instance"


class ProxyUser(User):
    class Meta:
        proxy = True
        app_label = "testapp"
        apps = Apps()


@pytest.fixture
def signal() -> WalSignal:
    return WalSignal()


def receivers(signal: WalSignal, sender: type[models.Model] | None = Note, stream: str = "default") -> list[Any]:
    return [connected.receiver for connected in signal.receivers_for(sender, stream)]


def filters(signal: WalSignal) -> list[Filter]:
    return [connected.filter for connected in signal.receivers_for(Note, "default")]


class TestSender:
    def test_a_model(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        assert receivers(signal, Note) == [heard]
        assert receivers(signal, User) == []

    @pytest.mark.parametrize("label", ["testapp.Note", "testapp.note"])
    def test_a_label(self, signal: WalSignal, label: str) -> None:
        signal.connect(heard, sender=label)
        assert receivers(signal, Note) == [heard]
        assert receivers(signal, User) == []

    def test_none_is_every_model_and_messages_without_one(self, signal: WalSignal) -> None:
        signal.connect(heard)
        assert receivers(signal, Note) == receivers(signal, User) == receivers(signal, None) == [heard]

    def test_a_model_hears_of_no_message_without_one(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        assert receivers(signal, None) == []

    def test_a_proxy_is_its_concrete_model(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=ProxyUser, fields=["username"])
        assert receivers(signal, User) == [heard]
        assert signal.disconnect(heard, sender=ProxyUser)
        assert receivers(signal, User) == []

    def test_a_label_may_name_a_model_that_is_loaded_later(self, signal: WalSignal) -> None:
        registry = Apps()
        signal.connect(heard, sender="later.Later", fields=["name"], apps=registry)
        assert signal.receivers == []
        later = make_model(registry)
        assert receivers(signal, later) == [heard]

    @isolate_apps("tests.testapp")
    def test_a_label_waits_in_the_registry_of_the_day(self, signal: WalSignal) -> None:
        signal.connect(heard, sender="testapp.Later")

        class Later(models.Model):
            class Meta:
                app_label = "testapp"

        assert receivers(signal, Later) == [heard]

    def test_a_field_of_a_model_that_is_loaded_later_is_looked_for_then(self, signal: WalSignal) -> None:
        registry = Apps()
        signal.connect(heard, sender="later.Later", fields=["nmae"], apps=registry)
        with pytest.raises(ValueError, match=r"later\.Later has no column of its own for nmae"):
            make_model(registry)
        assert signal.receivers == []

    @pytest.mark.parametrize("method", ["connect", "disconnect"])
    def test_a_label_that_no_model_ever_has_is_found_by_djangos_check(self, signal: WalSignal, method: str) -> None:
        registry = Apps()
        getattr(signal, method)(heard, sender="testapp.Noet", apps=registry)
        (error,) = _check_lazy_references(registry)
        assert error.id == "models.E022"
        assert "testapp.noet" in error.msg

    @pytest.mark.parametrize("label", ["Note", "a.b.c", ""])
    def test_a_label_that_is_none_is_refused(self, signal: WalSignal, label: str) -> None:
        with pytest.raises(ValueError, match="Invalid model reference"):
            signal.connect(heard, sender=label)

    def test_the_models_that_are_named_are_known(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        signal.connect(heard, sender=ProxyUser, stream="audit")
        signal.connect(heard)
        assert signal.senders([User, Group, Note], "default") == (Note,)
        assert signal.senders([User, Group, Note], "audit") == (User, Note)


def make_model(registry: Apps) -> type[models.Model]:
    class Later(models.Model):
        name = models.TextField()

        class Meta:
            app_label = "later"
            apps = registry

    return Later


class TestReferences:
    def test_a_function_is_held_weakly(self, signal: WalSignal) -> None:
        signal.connect(make_receiver(), sender=Note)
        gc.collect()
        assert receivers(signal) == []
        assert signal.senders([Note], "default") == ()

    def test_a_method_is_held_as_weakly_as_its_object(self, signal: WalSignal) -> None:
        listener = Listener()
        signal.connect(listener.hear, sender=Note)
        gc.collect()
        assert receivers(signal) == [listener.hear]
        del listener
        gc.collect()
        assert receivers(signal) == []

    def test_a_callable_object_may_receive(self, signal: WalSignal) -> None:
        listener = Listener()
        signal.connect(listener, sender=Note)
        assert receivers(signal) == [listener]

    def test_weak_false_holds_it(self, signal: WalSignal) -> None:
        signal.connect(make_receiver(), sender=Note, weak=False)
        signal.connect(Listener().hear, sender=Note, weak=False)
        gc.collect()
        assert [found() for found in receivers(signal)] == ["made", "method"]

    def test_one_that_dies_while_it_is_listed_is_none(self, signal: WalSignal) -> None:
        made = make_receiver()
        signal.connect(made, sender=Note)
        (connected,) = signal.receivers_for(Note, "default")
        assert connected.receiver is made
        del made
        gc.collect()
        assert connected.receiver is None

    def test_the_reused_id_of_a_dead_receiver_is_no_clash(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        bury(signal)
        signal.connect(heard, sender=Note, operations=["delete"])
        assert receivers(signal) == [heard]
        assert filters(signal) == [Filter(frozenset({Operation.DELETE}))]

    def test_the_reused_id_of_a_dead_receiver_does_not_inherit_its_filter(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        bury(signal)
        signal.connect(heard, sender=Note)
        assert filters(signal) == [Filter()]


def make_receiver() -> Receiver:
    def made(**kwargs: Any) -> str:
        return "made"

    return made


def bury(signal: WalSignal) -> None:
    """Make the only entry that of a receiver which died, and whose id somebody else has now."""
    (entry,) = signal.receivers
    dead = weakref.ref(make_receiver())
    gc.collect()
    assert dead() is None
    signal.receivers[0] = (entry[0], dead, *entry[2:])
    signal._dead_receivers = True


class TestConnectTwice:
    def test_the_same_connection_twice_is_one(self, signal: WalSignal) -> None:
        for _ in range(2):
            signal.connect(heard, sender=Note, operations=["insert"], fields=["text"], stream="default")
        assert receivers(signal) == [heard]

    @pytest.mark.parametrize(
        "other",
        [{}, {"operations": ["delete"]}, {"fields": ["text"]}, {"when": callable}, {"stream": "default"}],
    )
    def test_other_filters_for_the_same_receiver_are_refused(self, signal: WalSignal, other: dict[str, Any]) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        with pytest.raises(
            ValueError, match=r"tests\.test_signals\.heard is already connected .* dispatch_uid"
        ) as caught:
            signal.connect(heard, sender=Note, **other)
        assert "with other filters" in str(caught.value)
        assert filters(signal) == [Filter(frozenset({Operation.INSERT}))]

    def test_other_filters_for_the_same_method_are_refused(self, signal: WalSignal) -> None:
        listener = Listener()
        signal.connect(listener.hear, sender=Note)
        with pytest.raises(ValueError, match=r"test_signals\.Listener\.hear is already connected"):
            signal.connect(listener.hear, sender=Note, operations=["insert"])
        signal.connect(Listener().hear, sender=Note, operations=["insert"])

    def test_other_filters_for_another_sender_are_another_connection(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        signal.connect(heard, sender=User, operations=["delete"])
        signal.connect(heard, operations=["update"])
        assert [wanted.operations for wanted in filters(signal)] == [{"insert"}, {"update"}]

    def test_a_dispatch_uid_makes_another_connection(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"], dispatch_uid="one")
        signal.connect(heard, sender=Note, operations=["delete"], dispatch_uid="two")
        assert receivers(signal) == [heard, heard]
        assert [wanted.operations for wanted in filters(signal)] == [{"insert"}, {"delete"}]

    def test_a_dispatch_uid_makes_one_connection_of_two_receivers(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, dispatch_uid="one")
        signal.connect(heard_too, sender=Note, dispatch_uid="one")
        assert receivers(signal) == [heard]

    def test_the_filter_may_change_after_disconnecting(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        signal.disconnect(heard, sender=Note)
        signal.connect(heard, sender=Note, operations=["delete"])
        assert filters(signal) == [Filter(frozenset({Operation.DELETE}))]


class TestDisconnect:
    def test_it_says_whether_there_was_something_to_disconnect(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        assert signal.disconnect(heard, sender=User) is False
        assert signal.disconnect(heard) is False
        assert signal.disconnect(heard, sender=Note) is True
        assert signal.disconnect(heard, sender=Note) is False
        assert receivers(signal) == []

    @pytest.mark.parametrize(("connected", "disconnected"), [(Note, "testapp.Note"), ("testapp.note", Note)])
    def test_a_label_and_its_model_are_the_same(self, signal: WalSignal, connected: Any, disconnected: Any) -> None:
        signal.connect(heard, sender=connected)
        assert signal.disconnect(heard, sender=disconnected) is True
        assert receivers(signal) == []

    def test_by_dispatch_uid_alone(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, dispatch_uid="one")
        assert signal.disconnect(heard, sender=Note) is False
        assert signal.disconnect(sender=Note, dispatch_uid="one") is True
        assert receivers(signal) == []

    def test_a_method(self, signal: WalSignal) -> None:
        listener = Listener()
        signal.connect(listener.hear)
        assert signal.disconnect(listener.hear) is True

    def test_of_a_model_that_is_loaded_later_waits_for_it_as_connecting_does(self, signal: WalSignal) -> None:
        registry = Apps()
        signal.connect(heard, sender="later.Later", apps=registry)
        signal.connect(heard_too, sender="later.Later", apps=registry)
        signal.disconnect(heard, sender="later.Later", apps=registry)
        assert receivers(signal, make_model(registry)) == [heard_too]

    def test_a_receiver_that_was_disconnected_leaves_no_filter(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note, operations=["insert"])
        signal.disconnect(heard, sender=Note)
        assert not signal._filters


class TestFilters:
    def test_without_filters_everything_is_wanted(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        assert filters(signal) == [Filter(frozenset(Operation), None, None, None)]

    def test_filters_are_kept_as_given(self, signal: WalSignal) -> None:
        operations = ["insert", Operation.DELETE]
        signal.connect(
            heard, sender=Note, operations=operations, fields=["text", "pk"], when=callable, stream="default"
        )
        assert filters(signal) == [
            Filter(frozenset(map(Operation, operations)), frozenset({"text", "pk"}), callable, "default")
        ]

    @pytest.mark.parametrize("operation", ["upsert", "INSERT", "", 1, None])
    def test_an_unknown_operation_is_met_with_those_that_there_are(self, signal: WalSignal, operation: Any) -> None:
        with pytest.raises(ValueError, match="insert, update, delete") as caught:
            signal.connect(heard, sender=Note, operations=["insert", operation])
        assert repr(operation) in str(caught.value)
        assert receivers(signal) == []

    @pytest.mark.parametrize("key", ["operations", "fields"])
    def test_text_instead_of_a_list_is_refused(self, signal: WalSignal, key: str) -> None:
        with pytest.raises(ValueError, match=rf"{key} takes a list, such as \['update'\]"):
            signal.connect(heard, sender=Note, **{key: "update"})  # type: ignore[arg-type]

    def test_an_unknown_field_is_met_with_those_that_there_are(self, signal: WalSignal) -> None:
        expected = r"testapp\.Note has no column of its own for b, txet; fields= may name id, pk, text"
        with pytest.raises(ValueError, match=expected):
            signal.connect(heard, sender=Note, fields=["txet", "text", "b"])

    @pytest.mark.parametrize("field", ["groups", "user_permissions", "logentry"])
    def test_a_field_without_a_column_is_unknown(self, signal: WalSignal, field: str) -> None:
        with pytest.raises(ValueError, match=rf"auth\.User has no column of its own for {field}"):
            signal.connect(heard, sender=User, fields=[field])

    def test_a_foreign_key_goes_by_both_its_names(self, signal: WalSignal) -> None:
        signal.connect(heard, sender="auth.Permission", fields=["content_type", "content_type_id"])
        signal.connect(heard, sender=ContentType, fields=["app_label"])

    def test_without_a_sender_any_field_may_be_named(self, signal: WalSignal) -> None:
        signal.connect(heard, fields=["status"])
        assert filters(signal)[0].fields == {"status"}


class TestReceiversFor:
    def test_come_in_the_order_of_connecting(self, signal: WalSignal) -> None:
        listeners = [Listener() for _ in range(5)]
        for number, listener in enumerate(listeners):
            signal.connect(listener, sender=Note if number % 2 else None)
        assert receivers(signal) == listeners

    def test_are_those_of_a_stream(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        signal.connect(heard_too, sender=Note, stream="audit")
        assert receivers(signal, Note, "default") == [heard]
        assert receivers(signal, Note, "audit") == [heard, heard_too]

    def test_say_whether_they_are_async(self, signal: WalSignal) -> None:
        for each in (heard, heard_async):
            signal.connect(each, sender=Note)
        assert [connected.is_async for connected in signal.receivers_for(Note, "default")] == [False, True]

    def test_have_the_path_by_which_people_find_them(self, signal: WalSignal) -> None:
        listener = Listener()
        for each in (heard, listener.hear, listener, partial(heard, extra=1)):
            signal.connect(each, sender=Note, weak=False)
        assert [connected.path for connected in signal.receivers_for(Note, "default")] == [
            "tests.test_signals.heard",
            "tests.test_signals.Listener.hear",
            "tests.test_signals.Listener",
            "functools.partial",
        ]

    def test_have_a_path_even_when_dead(self, signal: WalSignal) -> None:
        made = make_receiver()
        signal.connect(made, sender=Note)
        (connected,) = signal.receivers_for(Note, "default")
        del made
        gc.collect()
        assert "None" in connected.path

    def test_are_frozen(self) -> None:
        connected = Connected(heard, Filter(), is_async=False)
        for value, name in ((connected, "filter"), (connected.filter, "fields")):
            with pytest.raises(AttributeError):
                setattr(value, name, None)


class TestGeneration:
    @pytest.mark.parametrize("act", [lambda signal: signal.connect(heard), lambda signal: signal.disconnect(heard)])
    def test_grows_with_every_change(self, signal: WalSignal, act: Callable[[WalSignal], Any]) -> None:
        before = signal.generation
        act(signal)
        assert signal.generation > before

    def test_grows_when_the_model_comes_too(self, signal: WalSignal) -> None:
        registry = Apps()
        signal.connect(heard, sender="later.Later", apps=registry)
        before = signal.generation
        make_model(registry)
        assert signal.generation > before


class TestAsAnyDjangoSignal:
    @pytest.mark.parametrize("signal", [post_wal_change, post_wal_truncate, wal_message])
    def test_it_is_one(self, signal: WalSignal) -> None:
        assert isinstance(signal, ModelSignal)

    def test_send_calls_the_receivers_of_the_sender(self, signal: WalSignal) -> None:
        signal.connect(heard, sender=Note)
        signal.connect(heard_too)
        signal.connect(heard_async, sender=Note, operations=["insert"])
        assert signal.send(sender=Note, change=None) == [
            (heard, "heard"),
            (heard_too, "heard too"),
            (heard_async, "heard async"),
        ]
        assert signal.send(sender=User, change=None) == [(heard_too, "heard too")]

    def test_send_robust_catches(self, signal: WalSignal) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError("no")

        signal.connect(fail)
        ((_, error),) = signal.send_robust(sender=Note)
        assert isinstance(error, LookupError)

    def test_has_listeners(self, signal: WalSignal) -> None:
        assert not signal.has_listeners(Note)
        signal.connect(heard, sender=Note)
        assert signal.has_listeners(Note) and not signal.has_listeners(User)

    def test_the_receiver_decorator_takes_the_filters(self, signal: WalSignal) -> None:
        @receiver(signal, sender=Note, operations=["update"], fields=["text"], stream="default")
        def decorated(sender: Any, instance: Any, change: Any, **kwargs: Any) -> None: ...

        assert receivers(signal) == [decorated]
        assert filters(signal) == [Filter(frozenset({Operation.UPDATE}), frozenset({"text"}), None, "default")]

    def test_under_debug_a_receiver_must_take_keywords(self, signal: WalSignal, settings: Any) -> None:
        settings.DEBUG = True
        with pytest.raises(ValueError, match="must accept keyword arguments"):
            signal.connect(lambda change: None, sender=Note)
        assert receivers(signal) == []
