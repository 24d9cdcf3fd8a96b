"""The one HTTPS request that carries a credential: where it goes, what it takes back, and what it makes of it."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import email.utils
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dev.certificates import Authority
from dev.clouds.local import Fault, LocalServer
from regcred.credentials import exchange, provider
from tests.credentials import redirects

WHAT = "The token endpoint of r.io"


def jwt(**claims: Any) -> str:
    """An unsigned JWT."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.c2ln"


class Echo(LocalServer):
    """Answers with what it was sent."""

    def __init__(self, authority: Authority | None) -> None:
        super().__init__(authority)
        self.ca = authority.certificate if authority else ""
        self.route("*", "/token", "token", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        form = dict((await request.post()).items())
        return web.json_response({"headers": dict(request.headers), "form": form, "method": request.method})


@pytest.fixture
async def server() -> AsyncIterator[Echo]:
    """A token endpoint with a certificate of a private CA."""
    async with Echo(Authority("a private CA")) as running:
        yield running


async def failure(server: Echo, path: str = "/token", **options: Any) -> provider.ProviderError:
    """The error that a request ends in, without a trace of a foreign one."""
    with pytest.raises(provider.ProviderError) as caught:
        await exchange.send("POST", server.origin + path, what=WHAT, **{"ca_bundle": server.ca, **options})
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


class TestSend:
    async def test_form(self, server: Echo) -> None:
        """A form goes out urlencoded, and the answer comes back."""
        answer = await exchange.send(
            "POST",
            f"{server.origin}/token",
            what=WHAT,
            headers={"Host": "r.io"},
            form=[("scope", "a:b"), ("token", "x y&z")],
            ca_bundle=server.ca,
        )
        said = answer.json()
        assert answer.status == 200
        assert said["form"] == {"scope": "a:b", "token": "x y&z"}
        assert said["headers"]["Host"] == "r.io"
        assert said["headers"]["User-Agent"].startswith("regcred/")

    @pytest.mark.parametrize("url", ["http://127.0.0.1/token", "HTTP://127.0.0.1", "ftp://x", "//x", ""])
    async def test_plain_http(self, url: str) -> None:
        """A credential goes over https or not at all."""
        with pytest.raises(ValueError, match="https only"):
            await exchange.send("GET", url, what=WHAT)

    @pytest.mark.parametrize("status", redirects.STATUSES)
    async def test_redirect(self, status: int) -> None:
        """A redirect is handed back and not followed."""

        async def send(to: redirects.Redirecting) -> exchange.Answer:
            form = [("password", "x")]
            return await exchange.send("POST", to.url, what=WHAT, form=form, ca_bundle=to.ca)

        answer, taken = await redirects.carried_along(status, send)
        assert answer.status == status
        assert taken == []
        found = exchange.passing_failure(answer, WHAT)
        assert found is not None
        assert found.reason == "Redirected"

    async def test_private_ca(self, server: Echo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A private CA is trusted when the entry or the environment names it, and not else."""
        error = await failure(server, ca_bundle="")
        assert (error.reason, "tls.caBundle" in error.message) == ("Unreachable", True)
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(server.ca)
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, str(ca_file))
                assert (await exchange.send("GET", f"{server.origin}/token", what=WHAT)).status == 200

    @pytest.mark.parametrize("bundle", ["no PEM", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"])
    async def test_bad_ca(self, bundle: str, server: Echo) -> None:
        """A CA bundle that is none is the entry's fault."""
        error = await failure(server, ca_bundle=bundle)
        assert isinstance(error, provider.InvalidSpec)
        assert error.field == "tls.caBundle"

    async def test_bad_ca_file(self, server: Echo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A CA file of the environment that is none is the operator's fault, not the entry's."""
        (tmp_path / "ca.pem").write_text("no PEM")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        error = await failure(server)
        assert (type(error), error.reason) == (provider.Retryable, "OperatorMisconfigured")

    async def test_new_ca(self, server: Echo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A CA file that changes is read again."""
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(Authority("another").certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        assert (await failure(server, ca_bundle="")).reason == "Unreachable"
        ca_file.write_text(server.ca)
        os.utime(ca_file, (1, 1))  # a clock too coarse for two writes in a row must not matter
        assert (await exchange.send("GET", f"{server.origin}/token", what=WHAT)).status == 200

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            (Fault(cut=True), "refused or broke off"),
            (Fault(200, "x" * (exchange.MAX_BODY + 1)), "too long"),
            (Fault(hang=True), "in time"),
        ],
        ids=["cut", "long", "hang"],
    )
    async def test_no_answer(self, fault: Fault, text: str, server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is no whole answer becomes one error with a cause in our words."""
        monkeypatch.setattr(exchange, "TIMEOUT", 0.5)
        server.fail("token", fault)
        error = await failure(server)
        assert (type(error), error.reason) == (provider.Retryable, "Unreachable")
        assert text in error.message
        assert error.message.startswith(WHAT)

    async def test_longest_body(self, server: Echo) -> None:
        """A body of exactly the limit is taken."""
        server.fail("token", Fault(200, "x" * exchange.MAX_BODY))
        answer = await exchange.send("POST", f"{server.origin}/token", what=WHAT, ca_bundle=server.ca)
        assert len(answer.body) == exchange.MAX_BODY

    async def test_no_name(self) -> None:
        """A name that does not resolve is told from a server that refuses."""
        with pytest.raises(provider.Retryable, match="does not resolve"):
            await exchange.send("GET", "https://r.example.invalid/token", what=WHAT)

    async def test_not_http(self) -> None:
        """A server without TLS where TLS should be is an error of ours like any other."""
        async with Echo(None) as plain:
            with pytest.raises(provider.Retryable) as error:
                await exchange.send("GET", f"https://127.0.0.1:{plain.port}/token", what=WHAT)
        assert error.value.reason == "Unreachable"

    async def test_netrc(self, server: Echo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A login in ~/.netrc is nobody's but its owner's."""
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login canary password canary\n")
        monkeypatch.setenv("NETRC", str(netrc))
        answer = await exchange.send("GET", f"{server.origin}/token", what=WHAT, ca_bundle=server.ca)
        assert "Authorization" not in answer.json()["headers"]

    async def test_proxy(self, server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment's proxy is used, and named as the culprit, but for hosts that it excepts."""
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert "proxy" in (await failure(server)).message
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        answer = await exchange.send("GET", f"{server.origin}/token", what=WHAT, ca_bundle=server.ca)
        assert answer.status == 200

    async def test_tunnel(self, server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy carries the request and sees neither the credential nor the form, only its own login."""
        heads: list[str] = []

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()

        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        async with proxy:
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
            answer = await exchange.send(
                "POST",
                f"{server.origin}/token",
                what=WHAT,
                headers={"Authorization": "Bearer canary"},
                form=[("token", "canary")],
                ca_bundle=server.ca,
            )
        assert answer.json()["form"] == {"token": "canary"}
        [head] = heads
        assert head.startswith("CONNECT 127.0.0.1:")
        assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in head
        assert "canary" not in head


class TestAnswer:
    @pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"<html>", b'"x"', b"[" * 100_000])
    def test_no_object(self, body: bytes) -> None:
        """Whatever is no JSON object reads as an empty one."""
        answer = exchange.Answer(200, {}, body)
        assert answer.json() == {}
        assert answer.text("token") == ""

    def test_text(self) -> None:
        """A field that is no string reads as an empty one."""
        answer = exchange.Answer(200, {}, b'{"a": "x", "b": 1, "c": null, "d": ["x"]}')
        assert [answer.text(name) for name in "abcd"] == ["x", "", "", ""]

    @pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 422])
    def test_speaks(self, status: int) -> None:
        """An answer about the credential is the caller's to judge."""
        assert exchange.passing_failure(exchange.Answer(status, {}, b""), WHAT) is None

    @pytest.mark.parametrize("status", [302, 407, 408, 429, 500, 502, 503, 504, 599])
    def test_passes(self, status: int) -> None:
        """An answer that is not about the credential is retryable."""
        assert isinstance(exchange.passing_failure(exchange.Answer(status, {}, b""), WHAT), provider.Retryable)


class TestTimes:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("", None),
            ("soon", None),
            ("-5", None),
            ("0", 1),
            ("30", 30),
            ("99999999999999999999", exchange.MAX_PATIENCE),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 1),
            ("Wed, 21 Oct 2015 07:28:00", 1),
            ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ],
    )
    def test_retry_after(self, value: str, seconds: float | None) -> None:
        """Retry-After is a number or a date, and bounded; anything else says nothing."""
        assert exchange.retry_after({"Retry-After": value}) == seconds

    def test_retry_after_date(self) -> None:
        """A date is as far away as it is."""
        then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
        found = exchange.retry_after({"Retry-After": email.utils.format_datetime(then, usegmt=True)})
        assert found is not None
        assert 90 < found <= 100

    @given(st.text(max_size=60))
    def test_retry_after_any(self, value: str) -> None:
        """No header breaks us or makes us wait longer than an hour."""
        found = exchange.retry_after({"Retry-After": value})
        assert found is None or 1 <= found <= exchange.MAX_PATIENCE

    @pytest.mark.parametrize(
        ("minutes", "text"), [(0, ""), (1, ""), (42, "42 minutes ahead of"), (-42, "42 minutes behind")]
    )
    def test_clock(self, minutes: int, text: str) -> None:
        """Clocks that differ by minutes are worth a word, in the right direction."""
        date = email.utils.format_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes), usegmt=True)
        remark = exchange.clock_remark(exchange.clock_offset({"Date": date}))
        assert text in remark
        assert bool(text) == bool(remark)
        assert exchange.clock_offset({}) == 0

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "a.b",
            "a.b.c",
            jwt(),
            jwt(exp="1"),
            jwt(exp=True),
            jwt(exp=None),
            jwt(exp=1e300),
            jwt(exp=float("nan")),
        ],
    )
    def test_no_expiry(self, token: str) -> None:
        """A token that does not say when it ends is not used."""
        with pytest.raises(provider.Retryable) as error:
            exchange.jwt_expiry(token, WHAT)
        assert error.value.reason == "UnexpectedAnswer"

    def test_ended(self) -> None:
        """A token that has ended already points to the clock."""
        with pytest.raises(provider.Retryable) as error:
            exchange.jwt_expiry(jwt(exp=1_000_000_000), WHAT)
        assert error.value.reason == "ClockSkew"

    def test_expiry(self) -> None:
        """A token's end is the one it says, in UTC."""
        assert exchange.jwt_expiry(jwt(exp=4_000_000_000), WHAT) == dt.datetime(
            2096, 10, 2, 7, 6, 40, tzinfo=dt.UTC
        )

    @given(st.text(max_size=80))
    def test_claims_of_anything(self, token: str) -> None:
        """Whatever is no JWT has no claims."""
        assert isinstance(exchange.jwt_claims(token), dict)
