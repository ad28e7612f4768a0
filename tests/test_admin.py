"""The admin shows checkpoints and edits none: a position moved by hand would lose or repeat changes."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN

pytestmark = [pytest.mark.integration, pytest.mark.django_db]


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint.objects.create(
        stream="a stream", lsn=LSN.parse("16/B374D848"), system_identifier="7", timeline=1, slot="a_slot"
    )


def page(name: str, *args: object) -> str:
    return reverse(f"admin:walsignals_checkpoint_{name}", args=args)


def test_the_list_shows_streams_and_positions(admin_client: Client, checkpoint: Checkpoint) -> None:
    response = admin_client.get(page("changelist"))
    assert response.status_code == 200
    for text in ("a stream", "16/B374D848", "a_slot"):
        assert text in response.text


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
