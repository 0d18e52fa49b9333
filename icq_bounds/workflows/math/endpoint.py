"""Answers from an endpoint that speaks the OpenAI chat protocol: a hosted service, or a server of one's own.

Timeouts, refused connections, rate limits, server errors and answers that are not what the protocol promises are tried
again, with exponential backoff and jitter, or after as long as the server asks for; what still fails is an `Answer`
that says so.  The key is read from an environment variable and sent to the endpoint, and appears nowhere else: no
error repeats what the server said, no redirect is followed, and a server on this machine is never asked through a
proxy.  A call ends at its deadline, however slowly a server talks, and after LONGEST bytes, packed or not.  Needs the
optional extra `llm`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from icq_bounds.workflows.math.backends import Answer, Problem, estimated_tokens

T = TypeVar("T")

AGAIN = {408, 409, 425, 429, *range(500, 600)}  # statuses worth another try
FORMAT = "Work step by step, then give the final number alone after ####."
LONGEST = 2**20  # bytes of an answer
TOO_LONG = f"malformed answer: above {LONGEST} bytes"
ADDRESS = "give http(s)://HOST[:PORT]/PATH without a user name; keys come from $VARIABLE"


@dataclass(frozen=True)
class Ask:
    """How a strategy asks: which model, with which instruction."""

    model: str
    instruction: str = FORMAT


@dataclass(frozen=True)
class Retry:
    """How to insist.  tries: calls at most; wait: seconds before the second, doubling up to `longest`; timeout: seconds
    for a whole call, from the name of the host to the last byte.
    """  # fmt: skip

    tries: int = 5
    wait: float = 1.0
    longest: float = 60.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries = {self.tries} must be at least 1")
        for name in ("wait", "longest"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)} must be a number of seconds, at least 0")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout = {self.timeout} must be a positive number of seconds")

    def pause(self, failed: int, asked: float | None, jitter: float) -> float:
        """Seconds before the next try after `failed` ones: what the server asked for, or a doubling wait of which
        jitter in [0, 1] keeps half to all; never above `longest`.
        """  # fmt: skip
        backoff = self.wait * 2.0 ** min(failed - 1, 60) * (0.5 + 0.5 * jitter)
        return min(self.longest, max(backoff, asked or 0.0))


class Reply(NamedTuple):
    """Status of an answer, what it asks to wait, how it is packed, and its bytes (none unless the status is 200)."""

    status: int
    wait: str | None
    packed: str
    data: bytes


class Endpoint:
    """A backend behind POST base_url/chat/completions.

    strategies: what each one asks.  key_variable: environment variable with the key; unset, none is sent.  Raises
    ValueError for an address that is none, or that would carry the key unencrypted to another machine.
    """

    def __init__(
        self,
        base_url: str,
        strategies: Mapping[str, Ask],
        *,
        key_variable: str = "OPENAI_API_KEY",
        retry: Retry | None = None,
        max_tokens: int = 512,
        sleep: Callable[[float], None] = time.sleep,
        seed: int = 0,
    ) -> None:
        try:
            import httpx2
        except ImportError:
            raise ValueError("endpoint: no HTTP client installed; pip install 'icq-bounds[llm]'") from None
        try:
            address = httpx2.URL(base_url.rstrip("/") + "/")
        except httpx2.InvalidURL:
            raise ValueError(f"base_url: not an address; {ADDRESS}") from None
        if address.scheme not in ("http", "https") or not address.host or address.userinfo:
            raise ValueError(f"base_url: {ADDRESS}")
        if address.query or address.fragment or not 0 < (address.port or 1) < 2**16:
            raise ValueError(f"base_url: nothing may follow the path, and ports end at {2**16 - 1}; {ADDRESS}")
        key, here = os.environ.get(key_variable, "").strip(), _loopback(address.host)
        if key and address.scheme == "http" and not here:
            raise ValueError(f"base_url: {address.host} over http would send ${key_variable} unencrypted; use https")
        if not key.isascii() or not key.isprintable():
            raise ValueError(f"{key_variable}: not a key (only printable ASCII can be sent)")
        self._ask, self._retry, self._max_tokens = dict(strategies), retry or Retry(), max_tokens
        self._sleep, self._random = sleep, random.Random(seed)
        self._key_variable, self._errors = key_variable, (httpx2.HTTPError, OSError)
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            self._client = httpx2.AsyncClient(
                base_url=address, headers=headers, timeout=None, follow_redirects=False, trust_env=not here
            )
        except (ValueError, ImportError, httpx2.InvalidURL):
            raise ValueError("proxy: what HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used") from None
        self._loop = asyncio.new_event_loop()  # a thread's own, so that a notebook's does not mind
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    @property
    def strategies(self) -> Sequence[str]:
        """Names that `answer` accepts."""
        return tuple(self._ask)

    def __repr__(self) -> str:
        return f"Endpoint({self._client.base_url!s}, {', '.join(self._ask)})"

    def close(self) -> None:
        """Close its connections."""
        if not self._loop.is_closed():
            self._wait(self._client.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def answer(self, problem: Problem, strategy: str) -> Answer:
        """The response to one question, after as many tries as it takes and is allowed."""
        ask = self._ask[strategy]
        body = {
            "model": ask.model, "max_tokens": self._max_tokens, "temperature": 0,
            "messages": [{"role": "system", "content": ask.instruction}, {"role": "user", "content": problem.text}],
        }  # fmt: skip
        start, failure = time.perf_counter(), ""
        for failed in range(1, self._retry.tries + 1):
            asked, again = None, True
            try:
                reply = self._wait(self._post(body))
            except self._errors as error:
                failure = f"no answer ({type(error).__name__})"
            except ValueError as error:
                failure = str(error)
            else:
                if reply.status == 200:
                    try:
                        text, tokens = _read(reply)
                    except ValueError as error:
                        failure = str(error)
                    else:
                        seconds = time.perf_counter() - start
                        return Answer(text, problem.right(text), tokens, seconds)
                else:
                    hint = f"; check ${self._key_variable}" if reply.status in (401, 403) else ""
                    failure, again = f"HTTP {reply.status}{hint}", reply.status in AGAIN
                    asked = _retry_after(reply.wait)
            if not again:
                break
            if failed < self._retry.tries:
                self._sleep(self._retry.pause(failed, asked, self._random.random()))
        return Answer("", False, 0, time.perf_counter() - start, failure)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What some work in the thread of the connections comes to."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, too, ends the call
            future.cancel()
            raise

    async def _post(self, body: Mapping[str, Any]) -> Reply:
        """One call.  Raises TimeoutError at its deadline, ValueError for an answer without end."""
        async with asyncio.timeout(self._retry.timeout):
            async with self._client.stream("POST", "chat/completions", json=body) as said:
                data = bytearray()
                if said.status_code == 200:
                    async for part in said.aiter_raw():
                        data += part
                        if len(data) > LONGEST:
                            raise ValueError(TOO_LONG)
                headers = said.headers
                return Reply(
                    said.status_code, headers.get("retry-after"), headers.get("content-encoding", ""), bytes(data)
                )


def _loopback(host: str) -> bool:
    """Whether a host is this machine, whatever a name server says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unpacked(reply: Reply) -> bytes:
    """The bytes of an answer.  Raises ValueError for one that is packed in another way than gzip, or a bomb."""
    if reply.packed.lower() in ("", "identity"):
        return reply.data
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # gzip or zlib, as its first bytes say
    try:
        data = unpack.decompress(reply.data, LONGEST + 1)
    except zlib.error:
        raise ValueError("malformed answer: packed, though it was asked not to be") from None
    if len(data) > LONGEST:
        raise ValueError(TOO_LONG)
    return data


def _read(reply: Reply) -> tuple[str, int]:
    """Text and tokens of a reply.  Raises ValueError naming what the protocol promises and is not there."""
    data = _unpacked(reply)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("malformed answer: not JSON") from None
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("malformed answer: no choices")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("malformed answer: no text in choices[0].message.content")
    usage = found.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens < 2**31:
        tokens = estimated_tokens(text)
    return text, tokens


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date; None for neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except ValueError:
            return None
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = (then - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None
