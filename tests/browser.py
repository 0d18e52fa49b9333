"""A real browser for tests: Chromium without a window, spoken to through two pipes (the DevTools protocol).

One browser serves every test of a session.  It sees what a user's browser does: requests, console errors, layout.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-default-apps", "--metrics-recording-only", "--remote-debugging-pipe",
)  # fmt: skip
# The protocol wants descriptors 3 (the browser reads) and 4 (it writes): move the pipes there and become the browser.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds for one answer, on a machine that does other things too


def find() -> str | None:
    """The browser's program, or None where none is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Seen:
    """A loaded page: what it asked for besides its own file, and what it complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Browser:
    """A running browser with one tab."""

    def __init__(self, program: str, profile: Path) -> None:
        reads, theirs_out = os.pipe()
        theirs_in, writes = os.pipe()
        ends = [str(theirs_in), str(theirs_out)]
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", LAUNCH, *ends, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.reads, self.writes, self.rest, self.count = reads, writes, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        os.close(self.writes)  # it ends when its pipe does
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.reads)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that arrive meanwhile are kept.  Raises RuntimeError for an error."""
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.writes, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.reads], [], [], max(end - time.monotonic(), 0))
            data = os.read(self.reads, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("the browser has ended" if ready else f"no answer within {PATIENCE:g} s")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def load(self, file: Path, width: int, height: int = 900, phone: bool = False) -> Seen:
        """Open a file in a window of this width (a phone's, with its way to treat wide pages) and wait for it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )  # fmt: skip
        self.events.clear()
        own = file.resolve().as_uri()
        self.call("Page.navigate", url=own)
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self._receive()
        self.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        seen = Seen()
        kept_back = [e["params"] for e in self.events if e["method"] == "Network.loadingFailed"]
        blocked = {e["requestId"] for e in kept_back if e.get("blockedReason") == "csp"}  # never left the browser
        for event in self.events:
            of, what = event["method"], event["params"]
            if of == "Network.requestWillBeSent" and what["requestId"] not in blocked:
                url = what["request"]["url"]
                if url.split("#")[0] != own and not url.startswith("data:"):
                    seen.requests.append(url)
            elif of == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                seen.complaints.append(what["entry"]["text"])
            elif of == "Runtime.exceptionThrown":
                seen.complaints.append(str(what["exceptionDetails"]))
            elif of == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
                seen.complaints.append(str(what["args"]))
        return seen

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page.  Raises RuntimeError when it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def screenshot(self, file: Path) -> Path:
        """The whole page as a picture."""
        height = int(self.js("document.documentElement.scrollHeight"))
        width = int(self.js("innerWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 12000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        file.write_bytes(base64.b64decode(data))
        return file

    @contextmanager
    def on_paper(self) -> Iterator[None]:
        """Lay the page out as for printing."""
        self.call("Emulation.setEmulatedMedia", media="print")
        try:
            yield
        finally:
            self.call("Emulation.setEmulatedMedia", media="")

    def pdf(self, file: Path) -> Path:
        """The page as it is printed, A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        data = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True, **size)["data"]
        file.write_bytes(base64.b64decode(data))
        return file
