"""A headless Chromium that tests can ask and click: its DevTools protocol over a pipe, without a port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


class Page:
    """An open page."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, os.fdopen(answers, "rb")
        self._number = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, address: str) -> None:
        """Go to `address`."""
        self._call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, script: str, seconds: float) -> Any:
        """Return the value of `script` as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"after {seconds} s not true: {script}"
            time.sleep(0.5)
        return value

    def screenshot(self, path: Path) -> None:
        """Write what the page shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next_message()).get("id") != self._number:
            pass  # an event, which nobody asked for
        assert "error" not in answer, answer
        return answer["result"]

    def _next_message(self) -> Any:
        text = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            text += byte
        return json.loads(text)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a Chromium of its own, of 1600 x 1000 pixels; skips where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    command_end, commands = os.pipe()
    answers, answer_end = os.pipe()
    # The protocol's ends are file descriptors 3 and 4.
    script = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
    flags = [*FLAGS, "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,1000"]
    line = ["bash", "-c", script, "chromium", chromium, *flags, "--remote-debugging-pipe"]
    with (tmp_path / "chromium.log").open("w") as log:
        browser = subprocess.Popen(line, pass_fds=(command_end, answer_end), stdout=log, stderr=log)
    os.close(command_end)
    os.close(answer_end)
    try:
        yield Page(commands, answers)
    finally:
        os.close(commands)
        browser.terminate()
        browser.wait()
