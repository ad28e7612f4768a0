"""The request as context: who made a change, in which request. Any Django middleware order works, but see below.

MIDDLEWARE = [
…
"django.contrib.auth.middleware.AuthenticationMiddleware",
"django_walsignals.middleware.WalContextMiddleware",        # behind it: request.user is there
…
]
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from django_walsignals.contexts import context

GetResponse: TypeAlias = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

#: What is taken for a request id if somebody sends it: it goes to logs and tables, so nothing else does.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")

#: Characters: with six bytes each in JSON, far below what a context may have.
_MAX_PATH: Final = 1000
_MAX_METHOD: Final = 20


class WalContextMiddleware:
    """Put a request's user, id, method and path on every change made while it is answered.

    ``user`` is the primary key of ``request.user`` when the change is made, None for nobody: it is asked for late, so a
    user whom a view or Django REST framework finds is seen. ``request_id`` is the header ``X-Request-ID`` if it is
    plausible, else a new one; views find it as ``request.wal_request_id``. ``path`` is without the query string.

    To add to it or leave something out, inherit and override `get_context`. A streamed answer is still in the context
    while it is streamed.
    """

    sync_capable: bool = True
    async_capable: bool = True

    def __init__(self, get_response: Any) -> None:
        self.get_response: GetResponse = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def get_context(self, request: HttpRequest) -> dict[str, Any]:
        """Give the metadata of a request, as `context` takes it: a function is called when a change is made."""
        return {
            "user": lambda: getattr(getattr(request, "user", None), "pk", None),
            "request_id": request.wal_request_id,  # type: ignore[attr-defined]
            "method": str(request.method)[:_MAX_METHOD],
            "path": request.path[:_MAX_PATH],
        }

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request in its context."""
        request.wal_request_id = request_id(request)  # type: ignore[attr-defined]
        block = context(**self.get_context(request))
        if iscoroutinefunction(self):
            return self._answer_async(request, block)
        with block:
            return _streamed(self.get_response(request), block)

    async def _answer_async(self, request: HttpRequest, block: context) -> Any:
        async with block:
            return _streamed(await self.get_response(request), block)  # type: ignore[misc]


def request_id(request: HttpRequest) -> str:
    """Take the request's id from its header, or make one."""
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def _streamed(response: Any, block: context) -> Any:
    """Have a streamed answer made in the context; one that is a file writes nothing, and servers know how to send it."""
    if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
        content: Any = response.streaming_content
        response.streaming_content = _parts_async(content, block) if response.is_async else _parts(content, block)
    return response


def _parts(content: Iterator[bytes], block: context) -> Iterator[bytes]:
    """Make each part in the context, and leave it in between: what runs then is the server."""
    parts = iter(content)
    while True:
        with block:
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def _parts_async(content: AsyncIterator[bytes], block: context) -> AsyncIterator[bytes]:
    parts = aiter(content)
    while True:
        async with block:
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        yield part
