"""A real browser without a window, told what to do through a pipe by Chromium's DevTools protocol."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path() -> str | None:
    """Where a browser is on this machine; None without."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


#: No part of what is tested needs a browser but what it is for, so a machine without one leaves it out, in CI as well.
needs_browser = pytest.mark.skipif(browser_path() is None, reason="no Chromium on this machine")


class Browser:
    """One page of a browser; used as a context.

    Attributes:
        said: what the page has written to the console, and its errors.
        fetched: addresses that were asked for, the page's own included.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.said: list[str] = []
        self.fetched: list[str] = []
        self._size = (width, height)
        self._theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxadmm-", ignore_cleanup_errors=True))
            orders_read, self._orders = os.pipe()
            self._answers, answers_write = os.pipe()
            for end in (self._orders, self._answers):
                stack.callback(os.close, end)
            flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --remote-debugging-pipe"
            pipes = f"3<&{orders_read} 4>&{answers_write}"
            process = subprocess.Popen(
                ["bash", "-c", f"exec {browser_path()} {flags} --user-data-dir={folder} {pipes}"],
                pass_fds=(orders_read, answers_write),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, timeout=20)
            stack.callback(process.terminate)
            for end in (orders_read, answers_write):
                os.close(end)
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.resize(*self._size)
            self.call("Emulation.setEmulatedMedia", features=[self._theme])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def open(self, page: Path) -> None:
        """Show a file, and wait until it is loaded and drawn."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page, and return what it gives, awaited."""
        given = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, path: Path, *, top: int = 0, height: int | None = None) -> None:
        """Write what the page looks like into a PNG: from a place on, as high as is asked for, or all of it."""
        width = self.run("document.documentElement.clientWidth")
        whole = self.run("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": top, "width": width, "height": min(whole - top, height or whole), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def call(self, method: str, **parameters: object) -> Any:
        """Give one order and wait for its answer."""
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _wait_for(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._answers, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        parameters = message.get("params", {})
        if message.get("method") == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.said.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.fetched.append(parameters["request"]["url"])
        return message
