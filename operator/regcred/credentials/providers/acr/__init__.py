"""Logins for Azure Container Registry."""

from regcred.credentials.providers.acr.provider import AcrProvider

__all__ = ["AcrProvider"]
