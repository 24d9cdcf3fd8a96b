"""How to reach the API server, and who we are there.

The `kubernetes` package says where the server is and how to log in: kubeconfig, exec plugins, in-cluster token.  Tokens
and certificates are rotated while we run, so both are looked at again and again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import pathlib
import ssl
import time
from collections.abc import Callable

import kubernetes.client
import kubernetes.client.rest
import kubernetes.config

from regcred.cluster import errors

_log = logging.getLogger(__name__)

#: Seconds a bearer token is used before its source is asked again, and before a refused one is read anew.
_HEADER_LIFE = 30.0
_FRESH = 1.0
#: Seconds that reading it may take.
_READ_TIMEOUT = 15.0


class Login:
    """Reads the bearer token and the certificates of a `kubernetes` configuration, as often as they change.

    The configuration's own hook re-reads the in-cluster token file or runs the exec plugin when due, once a minute at
    the most; where the server has refused a token, everything is loaded anew.  Both block, so they run in a thread of
    their own: a provider's SDK that fills the common ones must not cost us the Lease.

    Args:
        configuration: as loaded.
        reload: loads it anew.
    """

    def __init__(
        self,
        configuration: kubernetes.client.Configuration,
        reload: Callable[[], kubernetes.client.Configuration] | None = None,
    ) -> None:
        self.configuration = configuration
        self.server: str = configuration.host.rstrip("/")
        self.proxy = _proxy(configuration)
        self.ssl = self._context()
        self._reload = reload
        self._header: dict[str, str] = {}
        self._read_at = self._loaded_at = -math.inf
        self._failed = ""
        self._ca_mtime = self._mtime()
        self._lock = asyncio.Lock()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "regcred-login")

    def _mtime(self) -> float:
        path = self.configuration.ssl_ca_cert
        return pathlib.Path(path).stat().st_mtime if path and pathlib.Path(path).exists() else 0.0

    def _context(self) -> ssl.SSLContext | bool:
        if not self.server.startswith("https:"):
            return False
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert or None)
        if self.configuration.cert_file:
            context.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        if not self.configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def headers(self, *, fresh: bool = False) -> dict[str, str]:
        """Return the Authorization header; `fresh` after the server refused the last one.

        Where it cannot be read, the last one goes on being used.

        Raises:
            errors.Unavailable: it cannot be read, and there is none.
        """
        if self._recent(fresh=fresh):
            return self._header
        async with self._lock:
            if not self._recent(fresh=fresh):
                await self._renew(fresh=fresh)
        return self._header

    def _recent(self, *, fresh: bool) -> bool:
        # Of many requests that were refused together, the first one reads for all.
        since, life = (self._loaded_at, _FRESH) if fresh else (self._read_at, _HEADER_LIFE)
        return time.monotonic() - since < life

    async def _renew(self, *, fresh: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                self._header = await loop.run_in_executor(self._thread, self._read, fresh)
            self._failed = ""
        except Exception as error:  # noqa: BLE001 - files, programs and parsers of others
            name = type(error).__name__
            if name != self._failed:
                _log.warning("Could not read the login to the API server (%s)", name)
                self._failed = name
            if self._read_at == -math.inf:
                raise errors.Unavailable(0, f"the login to the API server cannot be read ({name})") from None
        self._read_at = time.monotonic()
        if fresh:
            self._loaded_at = self._read_at

    def _read(self, fresh: bool) -> dict[str, str]:  # noqa: FBT001 - run in a thread
        if fresh and self._reload is not None:
            self.configuration = self._reload()
            if isinstance(self.ssl, ssl.SSLContext) and self.configuration.cert_file:
                self.ssl.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        # A rotated CA is added to the live context: new connections trust it, old ones stay open.
        if isinstance(self.ssl, ssl.SSLContext) and (mtime := self._mtime()) != self._ca_mtime:
            self.ssl.load_verify_locations(self.configuration.ssl_ca_cert)
            self._ca_mtime = mtime
        token = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}


def _proxy(configuration: kubernetes.client.Configuration) -> str | None:
    """Return the proxy before the API server; the configuration holds what NO_PROXY says, but leaves it to others."""
    proxy: str | None = configuration.proxy
    if not proxy or kubernetes.client.rest.should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def login(kubeconfig: str | None = None, context: str | None = None) -> Login:
    """Return how to reach the cluster: the given kubeconfig, else in-cluster, else the user's own.

    Args:
        kubeconfig: path, or None for the default order.
        context: the context in that kubeconfig, or None for its current one.

    Raises:
        kubernetes.config.ConfigException: there is no usable configuration.
    """

    def load() -> kubernetes.client.Configuration:
        configuration = kubernetes.client.Configuration()
        if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes.config.load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
        return configuration

    return Login(load(), load)
