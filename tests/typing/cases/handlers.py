"""The decorators: a handler is checked against the model that it is connected to, and stays what it was."""

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from django_walsignals import WalChange, on_change, on_delete, on_insert, on_update
from tests.testapp.models import Note
from tests.typing.cases.other import Other


@on_update(Note, fields=["text"], when=lambda change: change.instance.text != "", stream="default")
def updated(change: WalChange[Note]) -> None:
    assert_type(change.instance, Note)


@on_insert(Note)
def inserted(change: WalChange[Note]) -> int:
    return 1


@on_delete(Note, dispatch_uid="one")
async def deleted(change: WalChange[Note]) -> None: ...


@on_change(Note, operations=["insert", "delete"])
def changed(change: WalChange[Note]) -> None: ...


@on_change("testapp.Note")
def changed_by_label(change: WalChange[Note]) -> None: ...


@on_change(None)
def any_changed(change: WalChange[Any]) -> str:
    return change.id


assert_type(updated, Callable[[WalChange[Note]], None])
assert_type(inserted, Callable[[WalChange[Note]], int])
assert_type(deleted, Callable[[WalChange[Note]], Coroutine[Any, Any, None]])


def handlers_can_be_called(change: WalChange[Note]) -> None:
    assert_type(inserted(change), int)
    assert_type(any_changed(change), str)


@on_update(Note)  # type: ignore[arg-type]
def takes_another_models_change(change: WalChange[Other]) -> None: ...


@on_change(Note)  # type: ignore[arg-type]
def takes_the_instance(instance: Note) -> None: ...


@on_insert(Note)  # type: ignore[arg-type]
def takes_the_signals_keywords(sender: type[Note], change: WalChange[Note]) -> None: ...


@on_change("testapp.Note")  # type: ignore[type-var]
def takes_text(change: str) -> None: ...


on_change(Note, operations=["upsert"])  # type: ignore[list-item]
on_update(Note, operations=["insert"])  # type: ignore[call-overload]
on_update(Note, when=lambda change: change.instance.txet == "")  # type: ignore[attr-defined]
on_update(Note, fieldz=["text"])  # type: ignore[call-overload]
on_update(str)  # type: ignore[type-var]
