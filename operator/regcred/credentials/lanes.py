"""How many credentials are fetched and proven at once, and who waits behind whom.

A provider or registry that swallows every connection holds a place until its timeout.  So the platform never waits
behind tenants, no tenant behind all of another's entries, and what works never behind what failed the last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator

#: Places of the platform, and again as many for its entries that failed the last time.
_PLATFORM = 8
#: Places of all tenants together, likewise.
_TENANTS = 16
#: Places of one tenant, likewise.
_TENANT = 4


class Lanes:
    """Bounded places for work that waits for somebody else's server."""

    def __init__(self) -> None:
        self._shared = {
            (tenant, failing): asyncio.Semaphore(_TENANTS if tenant else _PLATFORM)
            for tenant in (False, True)
            for failing in (False, True)
        }
        # A tenant's own bound lives as long as somebody waits or works under it.
        self._own: weakref.WeakValueDictionary[tuple[str, bool], asyncio.Semaphore] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def place(self, tenant: str, *, failing: bool) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Args:
            tenant: the namespace of a tenant's entry; "" for the platform.
            failing: the last try of this entry failed.
        """
        shared = self._shared[bool(tenant), failing]
        if not tenant:
            async with shared:
                yield
            return
        own = self._own.setdefault((tenant, failing), asyncio.Semaphore(_TENANT))
        async with own, shared:
            yield
