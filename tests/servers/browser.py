"""A headless Chromium for the tests, spoken to over a pipe in its DevTools protocol: no port, no further package.

`make test` brings it (docker/requirements/browser.sh); $CHROMIUM names another one.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TIMEOUT_S: Final = 60.0
_FLAGS: Final = (
    "--headless",
    # The sandbox needs rights that containers and root do not give; the pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium expects its two ends of the pipes as descriptors 3 and 4.
_START: Final = """
import os, sys
for descriptor, place in zip(sys.argv[1:3], (3, 4)):
    os.dup2(int(descriptor), place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str:
    """The browser's path.

    Raises:
        FileNotFoundError: there is none; says what to do.
    """
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise FileNotFoundError(
            f"no browser: {named or ', '.join(NAMES)} is not on the PATH; these tests open the reports in one. On "
            "Debian or Ubuntu: apt-get install chromium (make test does so as root); elsewhere set CHROMIUM to a "
            "Chromium or Chrome"
        )
    return found


class Browser:
    """One browser process; every page is a tab of its own."""

    def __init__(self, folder: Path) -> None:
        to_read, to_write = os.pipe(), os.pipe()
        # Away from 3 and 4, which the new process gives them.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_read[0], to_write[1])]
        os.close(to_read[0])
        os.close(to_write[1])
        self._out, self._in = to_read[1], to_write[0]
        profile = f"--user-data-dir={folder}"
        self._errors = (folder.parent / f"{folder.name}.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, theirs), find_chromium(), *_FLAGS, profile, "about:blank"],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        for fd in theirs:
            os.close(fd)
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; what happens meanwhile is kept in `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            result: dict[str, Any] = answer["result"]
            return result

    def wait_for(self, method: str, session: str) -> None:
        """Until an event of a page has come."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event.get("method") == method and event.get("sessionId") == session:
                    return
            seen = len(self.events)
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._in, 1 << 20) if ready else b""
            if not chunk:
                self._errors.seek(0)
                told = self._errors.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"the browser is silent (exit code {self._process.poll()}):\n{told}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(
        self,
        path: Path,
        width: int = 1366,
        height: int = 768,
        *,
        dark: bool = False,
        paper: bool = False,
        script: bool = True,
    ) -> Page:
        """Open a local file and wait until it is loaded.

        Args:
            path: of the file.
            width: of the window, in CSS pixels.
            height: of the window.
            dark: what the page is told of the reader's preference.
            paper: lay it out as for the printer.
            script: whether the page may run its script.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme])
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        page.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired", session)
        return page

    def close(self) -> None:
        """End the process and everything it started."""
        try:
            self.call("Browser.close")
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()
            for fd in (self._out, self._in):
                os.close(fd)
            self._errors.close()


@dataclass(frozen=True)
class Page:
    """One tab with one page."""

    browser: Browser
    target: str
    session: str

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to this page."""
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; works where the page's own script may not run.

        Raises:
            RuntimeError: it threw.
        """
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """One key, as the keyboard gives it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def move_to(self, x: float, y: float) -> None:
        """The pointer, in CSS pixels of the window; a tab in the background would wait for it."""
        self.call("Page.bringToFront")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def list_problems(self) -> list[str]:
        """What the page complained of: errors and warnings of its console, exceptions, policies broken, dialogs."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            method, parameters = event["method"], event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"].get("exception", parameters["exceptionDetails"])))
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
                found.append(str(parameters["args"]))
            elif method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
                found.append(parameters["entry"]["text"])
            elif method in {"Page.javascriptDialogOpening", "Network.loadingFailed"}:
                found.append(f"{method}: {parameters}")
        return found

    def list_requests(self) -> list[str]:
        """Addresses the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_pdf(self) -> bytes:
        """The page as printed on A4."""
        return base64.b64decode(
            self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)["data"]
        )

    def close(self) -> None:
        """Close the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        started = Browser(Path(folder) / "profile")
        try:
            yield started
        finally:
            started.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests that look at pages."""
    with start_browser() as started:
        yield started
