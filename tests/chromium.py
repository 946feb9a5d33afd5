"""A page as a browser shows it: Chromium without a window, over its debugging pipe, without a library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Shown", "browser"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Shown:
    """A page that has been loaded.

    Attributes:
        requests: What it asked for besides itself.
        complaints: What the browser says of it: errors, refused styles, warnings.
    """

    tab: Tab
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def value(self, expression: str) -> Any:
        """Returns what an expression of JavaScript gives in the page."""
        found = self.tab.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Takes a picture of the whole page."""
        found = self.tab.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


class Tab:
    """A tab of a running browser, over the pipes that it was started with."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None

    def send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def wait(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self._next()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._answers, 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        if "method" in found:
            self.events.append(found)
        return found

    def show(self, page: Path, width: int = 1000, *, dark: bool = False) -> Shown:
        """Loads a file, as wide as said, in the colours that a reader prefers."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=page.as_uri())
        self.wait("Page.loadEventFired")
        shown = Shown(self)
        self.send("Runtime.evaluate", expression="0")  # what was said before is there now
        for event in self.events:
            told = event.get("params", {})
            if event["method"] == "Network.requestWillBeSent" and told["request"]["url"] != page.as_uri():
                shown.requests.append(told["request"]["url"])
            if event["method"] == "Log.entryAdded":
                shown.complaints.append(told["entry"]["text"])
            if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                shown.complaints.append(json.dumps(told))
        return shown


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Starts Chromium, and ends it."""
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    words = [str(CHROMIUM), *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    start = f'exec 3<&{command_out} 4>&{answer_in}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", start, "bash", *words],
        pass_fds=(command_out, answer_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(profile)},
    )
    os.close(command_out)
    os.close(answer_in)
    tab = Tab(command_in, answer_out)
    try:
        target = tab.send("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        yield tab
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(command_in)
        os.close(answer_out)
