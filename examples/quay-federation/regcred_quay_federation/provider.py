"""Logins for Quay by robot federation (Red Hat Quay 3.13 and later, quay.io).

A robot trusts a service account of a cluster: its federation names the cluster's token issuer and the subject
`system:serviceaccount:NAMESPACE:NAME`.  For a token of that account Quay hands out a login of about an hour:

    GET https://HOST/oauth2/federation/robot/token   Basic robot:KUBERNETES-TOKEN   ->   {"token": JWT}

Quay checks the token's audience only where the federation lists audiences, so a token that reaches a wrong host
could be used at the right one.  Therefore the host is checked before anything is sent: quay.io, and those that the
operator's administrator names in `REGCRED_QUAY_HOSTS` (comma-separated, with the port where there is one).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
import re
from collections.abc import Sequence

from regcred import dockerconfig
from regcred.credentials import exchange, provider
from regcred_quay_federation.config import Config

PATH = "/oauth2/federation/robot/token"
HOSTS_VARIABLE = "REGCRED_QUAY_HOSTS"


class QuayFederation:
    """The provider `quay-federation`; its fields stand in `config`."""

    name = "quay-federation"

    def serves(self, server: str) -> bool:  # noqa: ARG002 - the host does not tell the robot
        """Never inferred from a host: without robot and service account there is nothing to ask with."""
        return False

    def key(self, ask: provider.Ask) -> str:
        """Return host, robot and account: a login is good for every repository of one Quay."""
        config, host = _checked(ask)
        parts = [self.name, host, config.robot, f"{ask.namespace}/{config.service_account}", config.audience]
        if ask.ca_bundle:
            parts.append(hashlib.sha256(ask.ca_bundle.encode()).hexdigest()[:12])
        return "|".join(parts)

    def sources(self, ask: provider.Ask) -> Sequence[provider.SourceRef]:  # noqa: ARG002 - there are none
        """Nothing is stored, so no Secret is read."""
        return []

    async def fetch(self, ask: provider.Ask) -> provider.Grant:
        """Trade the account's token for the robot's login.

        Raises:
            InvalidSpec: a field or host is wrong, or the account cannot be used.
            Denied: Quay does not know this account for this robot.
            Retryable: anything between.
        """
        config, host = _checked(ask)
        token = await ask.cluster.request_token(config.service_account, config.audience or f"https://{host}")
        what = f"The registry {host}"
        basic = base64.b64encode(f"{config.robot}:{token}".encode()).decode()
        # Before the request: regcred renews by half of the life that began when Quay made the token.
        issued_at = dt.datetime.now(dt.UTC)
        answer = await exchange.send(
            "GET",
            f"https://{host}{PATH}",
            what=what,
            headers={"Authorization": f"Basic {basic}"},
            ca_bundle=ask.ca_bundle,
        )
        if answer.status != 200:
            raise exchange.passing_failure(answer, what) or _refusal(answer, host, config, ask.namespace)
        password = answer.text("token")
        if not re.fullmatch(r"[\x21-\x7e]{1,65536}", password):
            raise provider.Retryable(
                "UnexpectedAnswer",
                f"{what} answers without a token; see whether a proxy or portal stands before it.",
            )
        return provider.Grant(
            logins={provider.ANY_SERVER: dockerconfig.Login(config.robot, password)},
            identity=config.robot,
            issued_at=issued_at,
            expires_at=exchange.jwt_expiry(password, what),
        )


def _checked(ask: provider.Ask) -> tuple[Config, str]:
    """Return the fields and the host, both checked; nothing is sent before."""
    config = Config.of(ask.config)
    allowed = {"quay.io", *(host.strip().lower() for host in os.environ.get(HOSTS_VARIABLE, "").split(","))}
    for server in (ask.server, *ask.servers):
        host = server.partition("/")[0]
        if host not in allowed or not host:
            raise provider.InvalidSpec(
                "HostNotAllowed",
                "Tokens for Quay go to quay.io only; another host is allowed by the operator's administrator, who "
                f"names it in {HOSTS_VARIABLE}.",
                field="server" if server == ask.server else "aliases",
            )
    return config, ask.server.partition("/")[0]


def _refusal(answer: exchange.Answer, host: str, config: Config, namespace: str) -> provider.ProviderError:
    if answer.status in {401, 403}:
        return provider.Denied(
            "RobotDenied",
            f"The registry {host} does not take service account {namespace}/{config.service_account} for robot "
            f"'{config.robot}': its federation must name this cluster's issuer and the subject "
            f"system:serviceaccount:{namespace}:{config.service_account}.",
            field="plugin.config.robot",
        )
    if answer.status in {404, 405}:
        return provider.Denied(
            "FederationMissing",
            f"The registry {host} has no robot federation: it takes Quay 3.13 or later.",
            field="server",
        )
    return provider.Retryable(
        "UnexpectedAnswer", f"The registry {host} refuses for a reason that is not known (HTTP {answer.status})."
    )
