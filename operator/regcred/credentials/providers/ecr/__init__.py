"""Logins for Amazon's container registries."""

from regcred.credentials.providers.ecr.provider import EcrProvider

__all__ = ["EcrProvider"]
