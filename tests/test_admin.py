"""The admin shows checkpoints and edits none; dead letters it shows, replays and discards."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from django_walsignals import WalChange, post_wal_change
from django_walsignals.admin import streams
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.protocol.lsn import LSN
from tests.commands.test_walreplay import make
from tests.ledger.models import Effect
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = [pytest.mark.integration, pytest.mark.django_db]


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint.objects.create(
        stream="a stream", lsn=LSN.parse("16/B374D848"), system_identifier="7", timeline=1, slot="a_slot"
    )


def page(name: str, *args: object) -> str:
    return reverse(f"admin:walsignals_checkpoint_{name}", args=args)


def test_a_stream_that_is_no_longer_configured_is_shown_as_that(admin_client: Client, checkpoint: Checkpoint) -> None:
    response = admin_client.get(page("changelist"))
    assert response.status_code == 200
    for text in ("a stream", "a_slot", "not in WALSIGNALS"):
        assert text in response.text


def test_a_stream_that_was_never_started_is_named_above_the_list(admin_client: Client, checkpoint: Checkpoint) -> None:
    text = admin_client.get(page("changelist")).text
    assert "Stream default (not set up): It has not been started yet. Run: manage.py walconsume default" in text


@pytest.mark.django_db(transaction=True)
class TestStreams:
    """What the list and the page say of a stream that there is."""

    @pytest.fixture
    def stopped(self, stream: Stream) -> Stream:
        stream.listen(Note)
        stream.set_up()
        Note.objects.create(text="waits")
        return stream

    def test_the_list_says_how_it_is_doing(self, admin_client: Client, stopped: Stream) -> None:
        make(1)
        Checkpoint.objects.update(last_error="<b>it broke</b>")
        text = admin_client.get(page("changelist")).text
        assert '<td class="field-state">stopped</td>' in text
        assert re.search(r'field-lag_in_bytes">[\d.]+\xa0k?B<', text)
        assert re.search(r'field-lag_in_time">[\d.]+\xa0s<', text)
        assert re.search(r'field-wal_kept_in_bytes">[\d.]+\xa0k?B<', text)
        assert '<td class="field-consumer_process">-</td>' in text
        assert '<a href="/admin/walsignals/deadletter/?stream=default">1</a>' in text
        assert "&lt;b&gt;it broke&lt;/b&gt;" in text
        assert "has not been started" not in text

    def test_the_link_leads_to_its_dead_letters(self, admin_client: Client, stopped: Stream) -> None:
        make(1)
        make(2, stream="other")
        assert "1 dead letter\n" in admin_client.get("/admin/walsignals/deadletter/?stream=default").text

    def test_the_page_says_what_to_do(self, admin_client: Client, stopped: Stream) -> None:
        text = admin_client.get(page("change", "default")).text
        for said in ("Nobody consumes it, and its slot keeps all log. Run: manage.py walconsume default", "reserved"):
            assert said in text
        assert re.search(r"[\d.]+ k?B; no limit", text)
        assert re.search(r"none.*; the last one was pid \d+ on ", text)
        assert str(stopped.checkpoint.lsn) in text

    def test_a_page_reads_each_status_once(
        self, admin_client: Client, stopped: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = []
        original = streams.read_status
        monkeypatch.setattr(streams, "read_status", lambda alias: read.append(alias) or original(alias))
        admin_client.get(page("changelist"))
        assert read == ["default"]

    def test_a_database_out_of_reach_is_a_state(
        self, admin_client: Client, stopped: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object) -> None:
            raise OperationalError("connection refused")

        monkeypatch.setattr("django_walsignals.status.reading.read_activity", refuse)
        for text in (admin_client.get(page(*args)).text for args in (("changelist",), ("change", "default"))):
            assert "unreachable" in text
        assert "connection refused" in text


def test_the_list_offers_no_action(admin_client: Client, checkpoint: Checkpoint) -> None:
    response = admin_client.get(page("changelist"))
    assert "delete_selected" not in response.text
    assert page("add") not in response.text


def test_a_checkpoint_is_shown_and_cannot_be_saved(admin_client: Client, checkpoint: Checkpoint) -> None:
    response = admin_client.get(page("change", checkpoint.pk))
    assert response.status_code == 200
    assert "16/B374D848" in response.text
    assert 'name="_save"' not in response.text
    assert page("delete", checkpoint.pk) not in response.text


@pytest.mark.parametrize("name", ["add", "delete"])
def test_a_checkpoint_is_neither_added_nor_deleted(admin_client: Client, checkpoint: Checkpoint, name: str) -> None:
    url = page(name, *([checkpoint.pk] if name == "delete" else []))
    assert admin_client.get(url).status_code == 403
    assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert Checkpoint.objects.get() == checkpoint


def test_a_checkpoint_is_not_changed(admin_client: Client, checkpoint: Checkpoint) -> None:
    response = admin_client.post(page("change", checkpoint.pk), {"stream": "other", "lsn": "0/0"})
    assert response.status_code == 403
    assert Checkpoint.objects.get().lsn == checkpoint.lsn


def test_the_delete_action_is_refused(admin_client: Client, checkpoint: Checkpoint) -> None:
    admin_client.post(page("changelist"), {"action": "delete_selected", "_selected_action": [checkpoint.pk]})
    assert Checkpoint.objects.filter(pk=checkpoint.pk).exists()


def test_staff_without_the_permission_see_nothing(client: Client, checkpoint: Checkpoint) -> None:
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert client.get(page("changelist")).status_code == 403


def receive(*, change: WalChange[Note], **kwargs: Any) -> None:
    Effect.objects.create(change_id=change.id, text=change.instance.text)
    if change.instance.text.startswith("<bad>"):
        raise LookupError("<b>still</b> bad")


@pytest.mark.usefixtures("no_receivers")
class TestDeadLetters:
    LIST = "admin:walsignals_deadletter_changelist"

    @pytest.fixture
    def letter(self) -> DeadLetter:
        post_wal_change.connect(receive, sender=Note)
        return make(1, "<script>alert(1)</script>", receiver="tests.test_admin.receive")

    def test_the_list_shows_what_failed(self, admin_client: Client, letter: DeadLetter) -> None:
        text = admin_client.get(reverse(self.LIST)).text
        for part in ("default", "testapp.Note", "insert", "tests.test_admin.receive", "LookupError: was bad", ">5<"):
            assert part in text
        assert "and more" not in text

    @pytest.mark.parametrize("query", ["kind__exact=change", "model=testapp.Note", "q=test_admin", "q=0/1/1"])
    def test_the_list_filters_and_searches(self, admin_client: Client, letter: DeadLetter, query: str) -> None:
        make(2, kind="truncate", operation="", model="auth.User", receiver="elsewhere")
        text = admin_client.get(f"{reverse(self.LIST)}?{query}").text
        assert "1 dead letter" in text
        assert "0/2/1" not in text

    def test_the_page_of_a_letter_shows_diff_and_traceback_escaped(
        self, admin_client: Client, letter: DeadLetter
    ) -> None:
        DeadLetter.objects.update(traceback="Traceback <b>of</b>\n  it", error="<i>no</i>")
        text = admin_client.get(self._page(letter)).text
        assert '<th scope="row">text</th><td></td><td>&lt;script&gt;alert(1)&lt;/script&gt;</td>' in text
        assert "<pre>Traceback &lt;b&gt;of&lt;/b&gt;\n  it</pre>" in text
        assert "&lt;i&gt;no&lt;/i&gt;" in text
        assert "Later changes of the same row have been delivered meanwhile." in text
        assert "can&#x27;t decode" not in text

    def test_the_page_holds_nothing_that_a_content_security_policy_would_block(
        self, admin_client: Client, letter: DeadLetter
    ) -> None:
        text = admin_client.get(self._page(letter)).text
        content = text[text.index('<div id="content"') :]
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", content)

    def test_what_can_not_be_decoded_is_shown_raw(self, admin_client: Client) -> None:
        letter = make(1, "a <b>", model="shop.Gone")
        text = admin_client.get(self._page(letter)).text
        assert '<th scope="row">text</th><td></td><td>a &lt;b&gt;</td>' in text
        assert "can&#x27;t decode" in text

    def test_a_letter_is_read_only(self, admin_client: Client, letter: DeadLetter) -> None:
        text = admin_client.get(self._page(letter)).text
        assert 'name="_save"' not in text
        assert "deletelink" not in text
        assert admin_client.post(self._page(letter), {"error": "none"}).status_code == 403
        for name, args in (("add", []), ("delete", [letter.pk])):
            url = reverse(f"admin:walsignals_deadletter_{name}", args=args)
            assert admin_client.post(url, {"post": "yes"}).status_code == 403
        assert DeadLetter.objects.get().error == letter.error

    def test_replay_runs_the_receiver_and_ends_the_letter(self, admin_client: Client, letter: DeadLetter) -> None:
        text = self._act(admin_client, "replay_selected", letter)
        assert "1 replayed." in text
        assert Effect.objects.get().change_id == letter.change_id
        assert not DeadLetter.objects.exists()

    def test_replay_that_fails_again_says_why(self, admin_client: Client, letter: DeadLetter) -> None:
        bad = make(2, "<bad>", receiver="tests.test_admin.receive")
        text = self._act(admin_client, "replay_selected", letter, bad)
        assert "1 replayed." in text
        assert f"{bad.pk}: failed again: LookupError: &lt;b&gt;still&lt;/b&gt; bad" in text
        assert DeadLetter.objects.get().attempts == 6
        assert Effect.objects.count() == 1

    def test_discard_asks_deletes_and_is_logged(self, admin_client: Client, letter: DeadLetter) -> None:
        assert "Discard selected dead letters" in admin_client.get(reverse(self.LIST)).text
        assert "Are you sure" in self._act(admin_client, "delete_selected", letter)
        assert DeadLetter.objects.exists()
        self._act(admin_client, "delete_selected", letter, post="yes")
        assert not DeadLetter.objects.exists()
        assert not Effect.objects.exists()
        assert LogEntry.objects.get().object_repr == str(letter)

    @pytest.mark.parametrize(
        ("permissions", "actions"),
        [
            (["view"], set()),
            (["change"], {"replay_selected"}),
            (["view", "delete"], {"delete_selected"}),
            (["change", "delete"], {"replay_selected", "delete_selected"}),
        ],
    )
    def test_each_action_takes_its_permission(
        self, client: Client, letter: DeadLetter, permissions: list[str], actions: set[str]
    ) -> None:
        codenames = [f"{name}_deadletter" for name in permissions]
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        text = client.get(reverse(self.LIST)).text
        assert {name for name in ("replay_selected", "delete_selected") if f'value="{name}"' in text} == actions
        assert client.get(self._page(letter)).status_code == 200
        for name in {"replay_selected", "delete_selected"} - actions:
            self._act(client, name, letter, post="yes")
        assert DeadLetter.objects.get().attempts == 5
        assert not Effect.objects.exists()

    def test_staff_without_permissions_see_and_do_nothing(self, client: Client, letter: DeadLetter) -> None:
        client.force_login(User.objects.create_user("staff", is_staff=True))
        assert client.get(reverse(self.LIST)).status_code == 403
        assert client.get(self._page(letter)).status_code == 403
        data = {"action": "replay_selected", "_selected_action": [letter.pk]}
        assert client.post(reverse(self.LIST), data).status_code == 403
        assert DeadLetter.objects.get().attempts == 5

    @pytest.mark.django_db(transaction=True)
    def test_replay_commits_by_itself_under_atomic_requests(
        self, admin_client: Client, letter: DeadLetter, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)
        assert "1 replayed." in self._act(admin_client, "replay_selected", letter)
        assert not DeadLetter.objects.exists()

    def _page(self, letter: DeadLetter) -> str:
        return reverse("admin:walsignals_deadletter_change", args=[letter.pk])

    def _act(self, client: Client, action: str, *letters: DeadLetter, **data: str) -> str:
        chosen = {"action": action, "_selected_action": [letter.pk for letter in letters]}
        return client.post(reverse(self.LIST), {**chosen, **data}, follow=True).text
