"""The admin in a browser: under a strict content security policy, and without a mouse."""

import pytest
from django.urls import reverse

from django_walsignals import post_wal_change
from django_walsignals.models import Checkpoint, DeadLetter
from tests.browser.conftest import Browser
from tests.commands.test_walreplay import make
from tests.ledger.models import Effect
from tests.streams import Stream
from tests.test_admin import receive
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STREAMS = "/admin/walsignals/checkpoint/"
LETTERS = "/admin/walsignals/deadletter/"


@pytest.fixture
def page(stream: Stream, browser: Browser) -> Browser:
    """Log in where a stream has been set up, stopped, and left two dead letters."""
    stream.listen(Note)
    stream.set_up()
    post_wal_change.connect(receive, sender=Note)
    for number in (1, 2):
        make(number, receiver="tests.test_admin.receive", error="LookupError: no such customer\nand more")
    Checkpoint.objects.update(last_error="receiver shop.walsignals.shipped raised LookupError on change 0/1/1")
    browser.log_in()
    return browser


def test_a_violation_would_be_noticed(page: Browser) -> None:
    page.open(STREAMS)
    page.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">inline</p>')")
    page.page.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: 'alert(1)'}))")
    wait_until(lambda: page.page.evaluate("1") and len(page.complaints) >= 2)
    assert all("Content Security Policy" in complaint for complaint in page.complaints)


@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_keeps_the_policy(page: Browser, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 800})
    letter = DeadLetter.objects.earliest("pk")
    for name, path in {
        "streams": STREAMS,
        "stream": reverse("admin:walsignals_checkpoint_change", args=["default"]),
        "letters": LETTERS,
        "letter": reverse("admin:walsignals_deadletter_change", args=[letter.pk]),
    }.items():
        page.open(path)
        page.shoot(f"admin-{name}-{width}")
    assert page.complaints == []


def test_the_streams_are_live(page: Browser, stream: Stream) -> None:
    page.open(STREAMS)
    state = page.page.locator(".field-state").first
    assert state.inner_text() == "stopped"
    with stream.process() as process:
        process.wait_for_stdout("streaming")
        wait_until(lambda: page.page.reload() and state.inner_text() == "streaming")
        assert f"pid {process.pid} on " in page.page.locator(".field-consumer_process").inner_text()
        page.shoot("admin-streams-streaming")
    assert page.complaints == []


def test_from_a_stream_to_its_page_and_its_dead_letters_with_the_keyboard(page: Browser) -> None:
    page.open(STREAMS)
    page.tab_to(".field-stream a")
    page.page.keyboard.press("Enter")
    page.page.wait_for_url("**/checkpoint/default/change/")
    assert page.page.locator(".field-state .readonly").inner_text() == "stopped"
    page.tab_to(".field-dead_letters a")
    page.page.keyboard.press("Enter")
    page.page.wait_for_url(f"**{LETTERS}?stream=default")
    assert page.page.locator("#result_list tbody tr").count() == 2
    assert page.complaints == []


def test_replay_with_the_keyboard(page: Browser) -> None:
    page.open(LETTERS)
    tick(page)
    run(page, "Replay")
    page.page.wait_for_selector(".messagelist .success")
    assert page.page.locator(".messagelist").inner_text() == "1 replayed."
    assert (DeadLetter.objects.count(), Effect.objects.count()) == (1, 1)
    page.shoot("admin-replayed")
    assert page.complaints == []


def test_discard_with_the_keyboard_asks_first(page: Browser) -> None:
    page.open(LETTERS)
    tick(page)
    run(page, "Discard")
    page.page.wait_for_selector("text=Are you sure")
    page.shoot("admin-discard")
    assert DeadLetter.objects.count() == 2
    page.tab_to("#content input[type=submit]")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".messagelist .success")
    assert (DeadLetter.objects.count(), Effect.objects.count()) == (1, 0)
    assert page.complaints == []


def tick(page: Browser) -> None:
    """Tick the last row, walking past all that comes before it."""
    page.tab_to("#result_list tbody tr:last-child input.action-select")
    page.page.keyboard.press("Space")
    assert page.page.locator("input.action-select:checked").count() == 1


def run(page: Browser, action: str) -> None:
    """Choose an action by its first letters, and press the button behind it."""
    page.tab_to("select[name=action]", key="Shift+Tab")  # the actions stand above the rows
    page.page.keyboard.type(action)
    assert page.page.locator("select[name=action] option:checked").inner_text().startswith(action)
    page.tab_to("button[name=index]")
    page.page.keyboard.press("Enter")
