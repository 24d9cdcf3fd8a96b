"""Finds providers: the built-in ones and those of third parties come through one door.

The entry-point group is `regcred.providers`; the name of an entry point is the provider's name.  A provider is
loaded when the first entry asks for it, so an SDK that nobody needs is never imported, and a plugin that is broken
breaks only the entries that name it.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping

from regcred.credentials import provider

GROUP = "regcred.providers"
#: Our own; no other distribution takes over one of their names, nor a host that one of them knows.
BUILT_IN = ("acr", "ecr", "gcr", "login")
_OURS = "regcred"
_log = logging.getLogger(__name__)


class Providers:
    """The providers of this installation.

    Args:
        factories: name to factory, in place of the installed entry points.
    """

    def __init__(self, factories: Mapping[str, provider.ProviderFactory] | None = None) -> None:
        self._points: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=GROUP):
            ours = point.dist is None or point.dist.name == _OURS
            if point.name in BUILT_IN and not ours:
                _log.warning("Left out a provider named %s that is not regcred's own", point.name)
            else:
                self._points[point.name] = point
        self._factories = dict(factories or {})
        self._loaded: dict[str, provider.Provider | str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of every provider there is, our own first, each part sorted."""
        return tuple(sorted({*self._points, *self._factories}, key=lambda name: (name not in BUILT_IN, name)))

    def get(self, name: str) -> provider.Provider:
        """Return the provider `name`.

        Raises:
            provider.InvalidSpec: there is none, or it cannot be loaded.
        """
        if name not in self._points and name not in self._factories:
            raise provider.InvalidSpec(
                "ProviderMissing",
                f"there is no provider {name!r} in this operator; it has: {', '.join(self.names)}",
            )
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        found = self._loaded[name]
        if isinstance(found, str):
            raise provider.InvalidSpec("ProviderBroken", found)
        return found

    def infer(self, server: str) -> str | None:
        """Return the name of the provider that knows `server` by its host name, or None."""
        for name in self.names:
            try:
                if self.get(name).serves(server):
                    return name
            except provider.InvalidSpec:
                continue
            except Exception as error:  # noqa: BLE001 - a broken plugin breaks only the entries that name it
                _log.warning("Provider %s failed to look at a host: %s", name, type(error).__name__)
        return None

    def _load(self, name: str) -> provider.Provider | str:
        """Return the provider, or what is wrong with it."""
        try:
            factory = self._factories[name] if name in self._factories else self._points[name].load()
            loaded = factory()
        except Exception as error:  # noqa: BLE001 - a broken plugin breaks only the entries that name it
            _log.error("Provider %s could not be loaded: %s", name, type(error).__name__)
            return f"the provider {name!r} could not be loaded ({type(error).__name__})"
        if not isinstance(loaded, provider.Provider):
            return f"the provider {name!r} does not follow the protocol"
        return loaded
