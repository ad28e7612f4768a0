"""``walreplay`` as an operator meets it."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_walsignals import WalChange, post_wal_change
from django_walsignals.delivery import replay
from django_walsignals.models import DeadLetter
from tests.ledger.models import Effect
from tests.processes import run_manage
from tests.testapp.models import Note

pytestmark = [pytest.mark.integration, pytest.mark.django_db, pytest.mark.usefixtures("no_receivers")]


def receive(*, change: WalChange[Note], **kwargs: Any) -> None:
    Effect.objects.create(change_id=change.id, text=change.instance.text)
    if change.instance.text == "bad":
        raise LookupError("still bad")


def make(number: int, text: str = "good", **values: Any) -> DeadLetter:
    """Write the letter of a note that was inserted."""
    columns = [[True, "id", 20, -1], [False, "text", 25, -1]]
    relation = {"oid": 1, "schema": "public", "name": "testapp_note", "replica_identity": "f", "columns": columns}
    place = {"xid": 7, "commit_lsn": f"0/{number}", "end_lsn": None, "committed_at": "2026-11-21T00:00:00+00:00"}
    new = {"id": str(number), "text": text}
    defaults: dict[str, Any] = {
        "stream": "default",
        "change_id": f"0/{number}/1",
        "model": "testapp.Note",
        "pk_text": str(number),
        "operation": "insert",
        "receiver": "tests.commands.test_walreplay.receive",
        "payload": {"relation": relation, "old": None, "new": new, "transaction": {**place, "context": {}}},
        "error": "LookupError: was bad\nand more",
        "traceback": "Traceback",
        "attempts": 5,
        "first_failed_at": timezone.now(),
        "last_failed_at": timezone.now(),
    }
    return DeadLetter.objects.create(**{**defaults, **values})


def run(*arguments: Any, **options: Any) -> str:
    output = StringIO()
    call_command("walreplay", *map(str, arguments), stdout=output, **options)
    return output.getvalue()


def left() -> list[str]:
    return [*DeadLetter.objects.values_list("change_id", flat=True)]


@pytest.fixture
def letters() -> list[DeadLetter]:
    post_wal_change.connect(receive, sender=Note)
    return [make(1), make(2, "bad"), make(3)]


class TestReplay:
    def test_by_id(self, letters: list[DeadLetter]) -> None:
        assert run(letters[2].pk) == f"{letters[2].pk}: replayed\n1 replayed\n"
        assert left() == ["0/1/1", "0/2/1"]

    def test_all_and_one_that_fails_again(self, letters: list[DeadLetter]) -> None:
        output = StringIO()
        with pytest.raises(CommandError, match=r"^2 replayed; still there: 1 of 3\.$") as failure:
            call_command("walreplay", all=True, stdout=output)
        assert failure.value.returncode == 1
        assert f"{letters[1].pk}: failed again: LookupError: still bad\n" in output.getvalue()
        assert left() == ["0/2/1"]
        assert [*Effect.objects.values_list("text", flat=True)] == ["good", "good"]

    def test_by_model_receiver_and_stream(self, letters: list[DeadLetter]) -> None:
        make(4, receiver="elsewhere.receive")
        make(5, model="auth.User")
        make(6, stream="other")
        DeadLetter.objects.filter(pk=letters[1].pk).delete()
        run(model="testapp.note", receiver="tests.commands.test_walreplay.receive", stream="default")
        assert left() == ["0/4/1", "0/5/1", "0/6/1"]

    def test_nothing_there(self) -> None:
        assert run("--all") == "There are no such dead letters.\n"
        assert run("--model", "testapp.Note", "--discard") == "There are no such dead letters.\n"

    def test_stop_at_once(self, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*args: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(replay, "call_with_savepoint", interrupt)
        with pytest.raises(CommandError, match="the letter in hand is as it was"):
            run("--all")
        assert len(left()) == 3


class TestList:
    def test_table(self, letters: list[DeadLetter]) -> None:
        lines = run("--list").splitlines()
        assert len(lines) == 5
        assert " ".join(lines[0].split()) == "ID STREAM CHANGE MODEL PK WHAT RECEIVER ATTEMPTS LAST FAILED ERROR"
        assert lines[1].startswith(str(letters[0].pk))
        for text in ("default", "0/1/1", "testapp.Note", "insert", "test_walreplay.receive", "LookupError: was bad"):
            assert text in lines[1]
        assert "and more" not in lines[1]
        assert lines[-1] == "Later changes of the same rows have been delivered meanwhile."
        assert len(left()) == 3

    def test_what_could_act_on_a_terminal_is_left_out(self) -> None:
        make(1, error="\x1b[2Jgone" + "x" * 100)
        assert "?[2Jgone" in run("--list")
        assert "…" in run("--list")

    def test_json_has_everything_but_the_row(self, letters: list[DeadLetter]) -> None:
        rows = json.loads(run("--json", "--model", "testapp.Note"))
        assert [row["change_id"] for row in rows] == ["0/1/1", "0/2/1", "0/3/1"]
        assert rows[0]["error"] == "LookupError: was bad\nand more"
        assert rows[0]["traceback"] == "Traceback"
        assert "payload" not in rows[0]

    def test_json_of_nothing(self) -> None:
        assert json.loads(run("--json")) == []


class TestDiscard:
    @pytest.mark.parametrize(("answer", "is_gone"), [("y", True), (" YES ", True), ("", False), ("no", False)])
    def test_it_asks(
        self, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch, answer: str, is_gone: bool
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or answer)
        if is_gone:
            assert run("--all", "--discard") == "3 discarded\n"
        else:
            with pytest.raises(CommandError, match="Nothing was discarded"):
                run("--all", "--discard")
        assert asked == ["Discard 3 dead letters for ever? [y/N] "]
        assert bool(left()) is not is_gone

    def test_no_answer_is_a_no(self, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", StringIO())
        with pytest.raises(CommandError, match="Nothing was discarded"):
            run("--all", "--discard")
        assert len(left()) == 3

    def test_without_asking(self, letters: list[DeadLetter]) -> None:
        assert run(letters[0].pk, letters[1].pk, "--discard", "--no-input") == "2 discarded\n"
        assert left() == ["0/3/1"]
        assert not Effect.objects.exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message", "code"),
        [
            ([], "Nothing is selected", 2),
            (["--discard"], "Nothing is selected", 2),
            (["1", "--all"], "Name ids or --all, not both", 2),
            (["424242"], "There is no dead letter 424242.", 1),
            (["424242", "--list"], "There is no dead letter 424242.", 1),
            (["424242", "434343"], "There is no dead letters 424242, 434343.", 1),
            (["--model", "testapp.Nota"], "There is no model 'testapp.Nota': did you mean 'testapp.Note'?", 1),
            (["--model", "nonsense"], "There is no model 'nonsense'", 1),
            (["--stream", "defalt"], "There is no stream 'defalt' in WALSIGNALS: did you mean 'default'?", 1),
        ],
    )
    def test_each_is_one_clear_line(self, arguments: list[str], message: str, code: int) -> None:
        with pytest.raises(CommandError) as failure:
            run(*arguments)
        assert str(failure.value).startswith(message.replace("There is no dead letters", "There are no dead letters"))
        assert "\n" not in str(failure.value)
        assert failure.value.returncode == code

    def test_id_outside_the_other_options(self, letters: list[DeadLetter]) -> None:
        with pytest.raises(CommandError, match=r"There is no dead letter \d+ that matches the other options\."):
            run(letters[0].pk, "--model", "auth.User")

    def test_model_that_is_gone_but_left_letters_behind(self) -> None:
        make(1, model="shop.Gone")
        assert "shop.Gone" in run("--list", "--model", "shop.gone")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["--list"], 0, "There are no such dead letters"), ([], 2, "Nothing is selected"), (["x"], 2, "invalid int")],
)
def test_exit_codes_of_the_process(arguments: list[str], code: int, says: str) -> None:
    process = run_manage("walreplay", *arguments)
    assert process.returncode == code
    assert says in process.stdout.text + process.stderr.text
    assert "Traceback" not in process.stderr.text
