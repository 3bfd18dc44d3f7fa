"""Headless Chromium by the WebDriver protocol (W3C), which is HTTP and JSON: no package is needed.

Needs `chromium` and `chromedriver` (Debian's chromium and chromium-driver).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SECONDS = 20
KEYS = {
    "Enter": "\ue007", "Home": "\ue011", "End": "\ue010", "Left": "\ue012", "Up": "\ue013",
    "Right": "\ue014", "Down": "\ue015", "Shift": "\ue008",
}  # fmt: skip
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--window-size=1400,1000",
    "--autoplay-policy=no-user-gesture-required", "--disable-background-networking",
    "--no-proxy-server", "--force-prefers-reduced-motion",
)  # fmt: skip


class Browser:
    """A session of a running driver."""

    def __init__(self, port: int) -> None:
        self._opener = build_opener(ProxyHandler({}))
        self._root = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": ARGUMENTS}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._send("", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/{made['sessionId']}"

    def _send(self, path: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._root + path, data, {"Content-Type": "application/json"})
        request.method = method
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        """Go to a file, anew where it is there already, and wait until its scripts have run."""
        self._send("/url", {"url": "about:blank"})
        self._send("/url", {"url": page.resolve().as_uri()})
        self.wait("document.URL !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script: str, *arguments: object) -> Any:
        """What a function body returns."""
        return self._send("/execute/sync", {"script": script, "args": arguments})

    def wait(self, condition: str) -> None:
        """Until an expression holds."""
        end = time.monotonic() + SECONDS
        while not self.run(f"return {condition}"):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """One key after the other, by name; Shift stays down until the end."""
        actions: list[dict[str, str]] = []
        for key in keys:
            value = KEYS.get(key, key)
            actions.append({"type": "keyDown", "value": value})
            if key != "Shift":
                actions.append({"type": "keyUp", "value": value})
        self._send("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})
        self._send("/actions", None, "DELETE")

    def click(self, selector: str, across: float = 0.5) -> None:
        """On an element, so far across it."""
        x, y = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.left + b.width * arguments[1],"
            "b.top + Math.min(b.height / 2, 30)]",
            selector,
            across,
        )
        steps: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._send("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})

    def console(self) -> list[str]:
        """What was written there since the last call."""
        return [entry["message"] for entry in self._send("/se/log", {"type": "browser"})]

    def devtools(self, command: str, **parameters: object) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self._send("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def close(self) -> None:
        """End the session."""
        self._send("", None, "DELETE")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, and its end."""
    assert DRIVER is not None
    with subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            port = next(
                int(found[1])
                for line in driver.stdout
                if (found := re.search(r"on port (\d+)\.", line))
            )
            browser = Browser(port)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()
