"""Logins for Google's container registries."""

from regcred.credentials.providers.gcr.provider import GcrProvider

__all__ = ["GcrProvider"]
