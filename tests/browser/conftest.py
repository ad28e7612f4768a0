"""A real browser: the system's Chromium under Playwright, and pages that note what a policy or a script objects to."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from tests.browser.policy import POLICY

#: Where screenshots are kept, for somebody to look at; none are taken without it.
SHOTS = os.environ.get("WALSIGNALS_TEST_SHOTS")


class Browser:
    """A page of a browser, and what it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def log_in(self) -> None:
        """Carry the session of a superuser."""
        client = Client()
        client.force_login(User.objects.create_superuser("root", password="root"))
        session = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": self.url}
        self.page.context.add_cookies([session])

    def open(self, path: str) -> None:
        """Go to a page."""
        response = self.page.goto(self.url + path)
        assert response is not None and response.status == 200
        assert response.headers["content-security-policy"] == POLICY

    def shoot(self, name: str) -> None:
        """Take a screenshot of the whole page, where somebody wants to look at it."""
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS, f"{name}.png"), full_page=True)

    def tab_to(self, selector: str, key: str = "Tab", most: int = 60) -> None:
        """Press Tab (or Shift+Tab) until the element has the focus, as somebody without a mouse would."""
        for _ in range(most):
            self.page.keyboard.press(key)
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} has no focus after {most} tabs")

    def _note(self, message: ConsoleMessage) -> None:
        is_icon = message.location["url"].endswith("/favicon.ico")  # a browser asks for one by itself
        if message.type in ("error", "warning") and not is_icon:
            self.complaints.append(message.text)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Start the browser, for a module: its event loop must not outlast it, or async tests could not run."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on the PATH (apt-get install chromium)")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright has a loop running, Django would object
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Chromium, live_server: Any) -> Iterator[Browser]:
    """Open a page on the live server, under a strict policy."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        yield Browser(context.new_page(), live_server.url)
