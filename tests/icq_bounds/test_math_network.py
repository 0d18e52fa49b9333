"""The endpoint against hostile networks: where the key goes, how much is read, and for how long."""

import gzip
import socket
import threading
import time
import zlib
from contextlib import contextmanager

import pytest

from icq_bounds.workflows.math.backends import Problem, equals
from tests.math_stub import said, server

pytest.importorskip("httpx2")
from icq_bounds.workflows.math.endpoint import LONGEST, Ask, Endpoint, Retry

KEY = "sk-very-secret-0123456789"
PROBLEM = Problem(3, "What is 20 + 22?", equals(42.0))
GOOD = (200, said("#### 42"), {})
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOME_KEY", KEY)


def ask(url, timeout=5.0):
    retry = Retry(tries=1, timeout=timeout)
    with Endpoint(url, {"s": Ask("m")}, key_variable="SOME_KEY", retry=retry, sleep=lambda seconds: None) as end:
        return end.answer(PROBLEM, "s")


@contextmanager
def drip(*parts, pause=0.02):
    """A server that says these parts, the last one for seconds on end, a little at a time."""
    end = time.monotonic() + 4
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        try:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                for part in parts[:-1]:
                    peer.sendall(part)
                while time.monotonic() < end:
                    time.sleep(pause)
                    peer.sendall(parts[-1])
        except OSError:
            pass  # the client has gone

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()
        thread.join()


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_on_this_machine_is_never_asked_through_a_proxy(monkeypatch, name):
    with server([GOOD]) as (url, direct), server([GOOD]) as (proxy, seen):
        monkeypatch.setenv(name, proxy.removesuffix("/v1"))
        assert ask(url).correct and ask(url.replace("127.0.0.1", "localhost")).correct
    assert len(direct) == 2 and seen == []


def test_elsewhere_a_proxy_gets_no_key(monkeypatch):
    """Over https it sees the name of the host alone; without a key plain http is allowed, and the proxy is used."""
    with server([GOOD]) as (proxy, seen):
        monkeypatch.setenv("HTTP_PROXY", proxy.removesuffix("/v1"))
        monkeypatch.setenv("HTTPS_PROXY", proxy.removesuffix("/v1"))
        assert not ask("https://models.example/v1").correct
        assert seen == []  # a CONNECT, which this server does not know
        with pytest.raises(ValueError, match="unencrypted"):
            ask("http://models.example/v1")
        monkeypatch.delenv("SOME_KEY")
        assert ask("http://models.example/v1").correct
    assert len(seen) == 1 and "authorization" not in seen[0]["headers"]


@pytest.mark.parametrize("proxy", ["socks9://127.0.0.1:1", "nonsense://"])
def test_a_proxy_that_is_none_is_named(monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ValueError, match="HTTPS_PROXY"):
        ask("https://models.example/v1")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.example/v1", "http://localhost.example/v1", "http://2130706433/v1", "http://0.0.0.0/v1",
        "http://user@127.0.0.1/v1", "http://127.0.0.1:99999999/v1", "http://127.0.0.1/v1?to=models.example",
        "http://127.0.0.1/v1#x", "http://[::2]/v1", "http://", "//127.0.0.1/v1", "http://127.0.0.1\\@models.example/",
        "http://127.0.0.1\n.example/v1",
    ],
)  # fmt: skip
def test_only_this_machine_gets_the_key_over_http(url):
    with pytest.raises(ValueError, match=r"^base_url: ") as error:
        Endpoint(url, {"s": Ask("m")}, key_variable="SOME_KEY")
    assert KEY not in str(error.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with server([GOOD]) as (elsewhere, seen), server([(status, b"", {"location": elsewhere})]) as (url, _):
        assert ask(url).failure == f"HTTP {status}"
    assert seen == []


def packed(data, how):
    return {"gzip": gzip.compress, "deflate": zlib.compress}[how](data, 9)


@pytest.mark.parametrize("how", ["", "gzip", "deflate"])
def test_an_answer_is_read_to_a_limit(how):
    data = b" " * (16 * LONGEST)
    headers = {"content-encoding": how} if how else {}
    with server([(200, packed(data, how) if how else data, headers)]) as (url, _):
        assert f"above {LONGEST} bytes" in ask(url).failure


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_an_answer_packed_unasked_is_read(how):
    body = packed(b'{"choices": [{"message": {"content": "#### 42"}}]}', how)
    with server([(200, body, {"content-encoding": how})]) as (url, calls):
        assert ask(url).correct
    assert calls[0]["headers"]["accept-encoding"] == "identity"
    for cut, name in ((body[:-20], how), (body, "br"), (b"x" + body, how), (gzip.compress(body), "gzip, gzip")):
        with server([(200, cut, {"content-encoding": name})]) as (url, _):
            answer = ask(url)
            assert answer.correct or "malformed answer" in answer.failure


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (b"H",), (HEAD, b"X"), (HEAD, b"A: b\r\n"), (HEAD + b"content-length: 999999\r\n\r\n", b" "),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"), (b"HTTP/1.1 100 Continue\r\n\r\n",),
    ],
)  # fmt: skip
def test_a_slow_drip_ends_at_the_deadline(parts):
    with drip(*parts) as url:
        begun = time.monotonic()
        answer = ask(url, timeout=0.3)
        assert time.monotonic() - begun < 1.5
    assert "no answer" in answer.failure


def test_an_endpoint_is_closed_twice_and_from_within_a_loop():
    import asyncio

    async def inside(url):
        return ask(url)

    with server([GOOD]) as (url, _):
        assert asyncio.run(inside(url)).correct  # as in a notebook
        end = Endpoint(url, {"s": Ask("m")}, key_variable="SOME_KEY")
        end.close()
        end.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint" and thread.is_alive()]
