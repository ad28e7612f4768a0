"""The request as context: through Django's own test clients, sync and async, down to the changes."""

import uuid
from collections.abc import Iterator

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.db import connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_walsignals import context
from django_walsignals.middleware import WalContextMiddleware
from django_walsignals.testing import WalStream
from tests.testapp.models import Note

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_walsignals.middleware.WalContextMiddleware",
]


def view(request: HttpRequest) -> HttpResponse:
    Note.objects.create(text="a")
    return HttpResponse(request.wal_request_id)


async def async_view(request: HttpRequest) -> HttpResponse:
    await Note.objects.acreate(text="a")
    return HttpResponse(request.wal_request_id)


def stream_view(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for text in "ab":
            Note.objects.create(text=text)
            yield text

    return StreamingHttpResponse(parts())


async def async_stream_view(request: HttpRequest) -> StreamingHttpResponse:
    async def parts():
        for text in "ab":
            await Note.objects.acreate(text=text)
            yield text

    return StreamingHttpResponse(parts())


def rest_view(request: HttpRequest) -> HttpResponse:
    """Do what Django REST framework does: it finds the user inside of the view."""
    from rest_framework.authentication import BasicAuthentication
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Notes(APIView):
        authentication_classes = (BasicAuthentication,)

        def post(self, request):
            Note.objects.create(text="a")
            return Response({})

    return Notes.as_view()(request)


urlpatterns = [
    path("view/", view),
    path("async/", async_view),
    path("stream/", stream_view),
    path("async-stream/", async_stream_view),
    path("rest/", rest_view),
]


@pytest.fixture
def site(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = MIDDLEWARE


@pytest.fixture
def notes(transactional_db: None, no_receivers: None, site: None) -> Iterator[WalStream]:
    with WalStream() as stream:
        stream.listen(Note)
        yield stream


def heard(stream):
    return [dict(change.transaction.context) for change in stream.consume()]


@pytest.mark.integration
class TestRequests:
    def test_user_id_method_and_path_without_its_query(self, notes):
        user = User.objects.create_user("u", password="p")
        client = Client()
        client.force_login(user)
        answer = client.post("/view/?token=secret", headers={"X-Request-ID": "abc-1"})
        assert answer.content == b"abc-1"
        assert heard(notes) == [{"user": user.pk, "request_id": "abc-1", "method": "POST", "path": "/view/"}]

    def test_nobody(self, notes):
        Client().get("/view/")
        [found] = heard(notes)
        assert found["user"] is None
        assert uuid.UUID(found["request_id"])

    def test_without_authentication(self, notes, settings):
        settings.MIDDLEWARE = MIDDLEWARE[2:]
        Client().get("/view/")
        assert [found["user"] for found in heard(notes)] == [None]

    def test_atomic_requests(self, notes, monkeypatch):
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        Client().get("/view/")
        assert [found["path"] for found in heard(notes)] == ["/view/"]

    def test_user_of_django_rest_framework(self, notes):
        user = User.objects.create_user("u", password="p")
        answer = Client().post("/rest/", headers={"Authorization": "Basic dTpw"})
        assert answer.status_code == 200
        assert [found["user"] for found in heard(notes)] == [user.pk]

    def test_two_requests_do_not_mix_and_nothing_stays(self, notes):
        for number in "12":
            Client().get("/view/", headers={"X-Request-ID": number})
        assert context.current() == {}
        assert [found["request_id"] for found in heard(notes)] == ["1", "2"]

    def test_streamed_answer(self, notes):
        answer = Client().get("/stream/", headers={"X-Request-ID": "s"})
        assert context.current() == {}
        parts = iter(answer.streaming_content)
        next(parts)
        assert context.current() == {}  # in between it is the server that runs
        assert b"".join(parts) == b"b"
        assert [found["request_id"] for found in heard(notes)] == ["s", "s"]

    def test_long_path_is_cut(self, notes):
        Client().get(f"/{'é' * 5000}/")

    async def _together(self, *urls):
        clients = [AsyncClient().get(url, headers={"X-Request-ID": url}) for url in urls]
        for client in clients:
            await client
        await sync_to_async(connections.close_all)()

    async def _stream(self):
        answer = await AsyncClient().get("/async-stream/", headers={"X-Request-ID": "s"})
        assert context.current() == {}
        assert [part async for part in answer.streaming_content] == [b"a", b"b"]
        await sync_to_async(connections.close_all)()

    def test_asgi(self, notes):
        import asyncio

        asyncio.run(self._together("/async/", "/view/"))
        assert [(found["request_id"], found["path"]) for found in heard(notes)] == [
            ("/async/", "/async/"),
            ("/view/", "/view/"),
        ]

    def test_asgi_stream(self, notes):
        import asyncio

        asyncio.run(self._stream())
        assert [found["request_id"] for found in heard(notes)] == ["s", "s"]


class TestMiddleware:
    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\nb", "é", "<script>"])
    def test_odd_request_id_is_replaced(self, rf, given):
        request = rf.get("/", headers={"X-Request-ID": given})
        WalContextMiddleware(lambda _: HttpResponse(context.current()["request_id"]))(request)
        assert uuid.UUID(request.wal_request_id)

    def test_subclass_chooses_what_is_in_it(self, rf):
        class Tenant(WalContextMiddleware):
            def get_context(self, request):
                return {**super().get_context(request), "tenant": "t", "path": None}

        found = {}
        Tenant(lambda _: found.update(context.current()) or HttpResponse())(rf.get("/a/"))
        assert (found["tenant"], found["path"], found["method"]) == ("t", None, "GET")

    def test_key_that_is_no_number(self, rf):
        key = uuid.uuid4()
        request = rf.get("/")
        request.user = User()
        request.user.pk = key
        found = {}
        WalContextMiddleware(lambda _: found.update(context.current()) or HttpResponse())(request)
        assert found["user"] == str(key)

    def test_it_is_async_where_what_is_behind_it_is(self):
        async def answer(request):
            return HttpResponse()

        assert iscoroutinefunction(WalContextMiddleware(answer))
        assert not iscoroutinefunction(WalContextMiddleware(view))

    def test_file_is_left_to_the_server(self, rf, tmp_path):
        file = (tmp_path / "a").open("w+b")
        answer = WalContextMiddleware(lambda _: FileResponse(file))(rf.get("/"))
        assert answer.file_to_stream is file
        answer.close()

    def test_view_that_raises_ends_the_block(self, rf):
        def fail(request):
            raise LookupError

        with pytest.raises(LookupError):
            WalContextMiddleware(fail)(rf.get("/"))
        assert context.current() == {}
