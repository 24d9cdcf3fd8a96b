"""One request to a registry, bounded, and kept from what only this machine or its cloud can reach.

A tenant who names a registry makes the operator connect to it.  The node's metadata service and whatever
listens on the operator's own loopback must stay out of his reach, under every name and spelling, so the
addresses are checked where the connection is made: after resolution, once, with no second look-up between.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import socket
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import aiohttp.abc
import multidict
import yarl

import regcred
from regcred.credentials import exchange

_log = logging.getLogger(__name__)

#: Bytes read of any answer.
MAX_BODY = 64 * 1024

#: Metadata and platform services of the clouds that stand outside the link-local range.
_PLATFORM = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::23",  # EKS Pod Identity
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """A name leads to an address that a tenant may not contact."""


class NoAnswer(Exception):
    """No whole answer came; the text says of whom and why, in words of ours."""


def is_refused(text: str) -> bool:
    """Say whether a literal address is link-local, loopback or otherwise out of a tenant's reach."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_refused(str(inner))
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address in _PLATFORM
        or (address.version == 4 and address in ipaddress.ip_network("0.0.0.0/8"))
    )


def names_refused(host: str) -> bool:
    """Say whether a host, before any resolution, is an address or a name that a tenant may not contact."""
    name = host.lower().strip("[]").rstrip(".")
    return is_refused(name) or name == "localhost" or name.endswith(".localhost")


class _Resolver(aiohttp.abc.AbstractResolver):
    """The system's resolver, which for a tenant refuses what it may not contact."""

    def __init__(self, *, tenant: bool) -> None:
        self._tenant = tenant
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        """Resolve `host`.

        Raises:
            AddressRefused: one of its addresses is refused; a name with both kinds is a trick.
        """
        found = await self._system.resolve(host, port, family)
        if self._tenant and any(is_refused(result["host"]) for result in found) and host not in _proxy_hosts():
            raise AddressRefused
        return found

    async def refuses(self, host: str, port: int) -> bool:
        """Say whether a name that a proxy will resolve leads, as far as we see, to a refused address."""
        try:
            await self.resolve(host, port)
        except AddressRefused:
            return True
        except OSError:
            return False
        return False

    async def close(self) -> None:
        """Close the system's resolver."""
        await self._system.close()


class Connector(aiohttp.TCPConnector):
    """Connections of requests that resources ask for, of tenants or of the platform, never of both."""

    def __init__(self, *, tenant: bool) -> None:
        self.tenant = tenant
        self.resolver = _Resolver(tenant=tenant)
        super().__init__(resolver=self.resolver, limit=16, use_dns_cache=False)


def open_session(*, tenant: bool = False) -> aiohttp.ClientSession:
    """Return a session for requests that resources ask for; the caller closes it.

    It keeps no cookies, reads no `~/.netrc`, and unpacks nothing that is sent compressed.

    Args:
        tenant: whether they are namespaced resources.  Sessions of the two kinds are not mixed: an open
            connection of the one would serve the other.
    """
    return aiohttp.ClientSession(
        connector=Connector(tenant=tenant),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"regcred/{regcred.__version__}", "Accept-Encoding": "identity"},
        auto_decompress=False,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: status, headers, and the first `MAX_BODY` bytes of the body, never shown."""

    status: int
    headers: multidict.CIMultiDictProxy[str] = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: yarl.URL,
    *,
    what: str,
    tls: ssl.SSLContext,
    timeout: float,  # noqa: ASYNC109 - aiohttp's own is used
    headers: Mapping[str, str] | None = None,
    form: Sequence[tuple[str, str]] | None = None,
) -> Answer:
    """Send one request and return the answer, whatever its status; no redirect is followed.

    Args:
        session: of `open_session`; whether addresses are guarded depends on it.
        method: HTTP method.
        url: where to.
        what: how an error text calls the other side, such as `The registry r.io`.
        tls: whom to trust.
        timeout: seconds for the whole.
        headers: more headers.
        form: fields of an urlencoded body.

    Raises:
        NoAnswer: nothing came, not all of it, or the address is refused.
    """
    refusal = NoAnswer(
        f"{what} is not asked: its address is link-local or loopback, which a namespaced resource may not contact."
    )
    options: dict[str, Any] = {"data": aiohttp.FormData(form)} if form is not None else {}
    proxy = proxy_for(url)
    connector = session.connector
    if isinstance(connector, Connector) and connector.tenant:
        host, port = url.raw_host or "", url.port or 443
        if names_refused(host) or (proxy is not None and await connector.resolver.refuses(host, port)):
            raise refusal
    if proxy is not None:
        options["proxy"] = proxy.with_user(None)
        if proxy.user:
            login = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
            options["proxy_headers"] = {"Proxy-Authorization": login}
    try:
        async with session.request(
            method,
            url,
            headers=headers,
            ssl=tls,
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
            **options,
        ) as response:
            body = bytearray()
            while len(body) < MAX_BODY and (part := await response.content.read(MAX_BODY - len(body))):
                body += part
            _log.debug("%s %s://%s%s answered %d", method, url.scheme, url.host, url.path, response.status)
            return Answer(response.status, response.headers, bytes(body))
    except TimeoutError:
        failure = NoAnswer(f"{what} cannot be reached: no answer came within {timeout:g} seconds.")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        refused = isinstance(getattr(error, "os_error", error), AddressRefused)
        failure = refusal if refused else NoAnswer(exchange.unreachable(error, what).message)
    _log.debug("%s %s://%s%s failed: %s", method, url.scheme, url.host, url.path, failure)
    raise failure  # outside the handler: the foreign exception is no part of ours


def serves(session: aiohttp.ClientSession, *, tenant: bool) -> bool:
    """Say whether a session is one of `open_session` for this kind of resource."""
    return isinstance(session.connector, Connector) and session.connector.tenant is tenant


def proxy_for(url: yarl.URL) -> yarl.URL | None:
    """Return the proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` set for a URL, maybe with its login.

    Loopback is never proxied.  aiohttp's own way (`trust_env`) would send logins of `~/.netrc` along.
    """
    host = url.host or ""
    if names_loopback(host) or urllib.request.proxy_bypass(f"{url.raw_host}:{url.port}"):
        return None
    proxy = urllib.request.getproxies().get(url.scheme)
    if not proxy:
        return None
    return yarl.URL(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_hosts() -> set[str | None]:
    return {
        yarl.URL(proxy if "://" in proxy else f"//{proxy}").host for proxy in urllib.request.getproxies().values()
    }


def names_loopback(host: str) -> bool:
    """Say whether a host is this machine by name or literal address."""
    name = host.lower().strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
