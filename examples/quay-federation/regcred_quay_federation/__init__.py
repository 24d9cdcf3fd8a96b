"""regcred provider `quay-federation`: a service account's token becomes a login of a Quay robot, nothing is stored."""

from regcred_quay_federation.provider import QuayFederation

__all__ = ["QuayFederation"]
