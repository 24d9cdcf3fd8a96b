"""A registry entry for Amazon, checked: where its login is asked for, and as whom.

Pure: whatever is wrong with an entry is found here, before anything is read or sent.  And nothing but this decides
whether the operator's own identity may be used, so that the rule stands in one place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Literal

from regcred.credentials import provider
from regcred.credentials.providers.ecr import client as ecr_client
from regcred.credentials.providers.ecr import errors as ecr_errors
from regcred.credentials.providers.ecr import hosts as ecr_hosts

_ROLE_ARN = re.compile(r"arn:(?P<partition>aws[a-z-]{0,16}):iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """An entry, checked: where to call, and as whom."""

    place: ecr_client.Place
    partition: str
    identity: Literal["own", "keys", "account"]
    source: str
    namespace: str
    role_arn: str
    external_id: str

    @property
    def key(self) -> str:
        """What makes two entries the same fetch; see `provider.Provider.key`."""
        parts = ["ecr-public" if self.place.public else "ecr", self.partition, self.place.region]
        parts += ["fips"] if self.place.fips else []
        parts += [self.identity]
        parts += [f"{self.namespace}/{self.source}"] if self.source else []
        parts += [self.role_arn] if self.role_arn else []
        # The external id is no secret, but not ours to publish either.
        parts += [hashlib.sha256(self.external_id.encode()).hexdigest()[:12]] if self.external_id else []
        return "|".join(parts)

    @property
    def subject(self) -> str:
        """Who calls, as messages say it."""
        if self.identity == "own":
            return "the operator's own identity"
        kind = "the access key in Secret" if self.identity == "keys" else "service account"
        return f"{kind} {self.namespace}/{self.source}"

    @property
    def field(self) -> str:
        """The field that names the identity, "" for the operator's own."""
        return {"own": "", "keys": "ecr.secretRef.name", "account": "ecr.serviceAccountRef.name"}[self.identity]

    def step(self, action: str, advice: str, *, asked: str = "", static: bool = False) -> ecr_errors.Step:
        """A call of this plan's, for `ecr_errors`."""
        return ecr_errors.Step(
            action, self.subject, self.place.region, advice, field=self.field, asked=asked, static=static
        )


def plan_for(ask: provider.Ask) -> Plan:
    """Check the entry; nothing is read or sent before this has passed.

    Raises:
        InvalidSpec: with the field.
    """
    config = ask.config
    role_arn = getattr(config, "role_arn", None) or ""
    external_id = getattr(config, "external_id", None) or ""
    region = getattr(config, "region", None) or ""
    account = getattr(config, "service_account_ref", None)
    secret = getattr(config, "secret_ref", None)
    place, partition = _place(ask, region)
    if account and secret:
        raise provider.InvalidSpec(
            "TwoIdentities",
            "Both serviceAccountRef and secretRef are given; keep one.",
            field="ecr.secretRef",
        )
    if role_arn:
        check_role(role_arn, partition, "ecr.roleArn", "ecr.roleArn")
    _check_external_id(external_id, role_arn=role_arn, federated=account is not None)
    if account:
        return Plan(place, partition, "account", account.name, ask.namespace, role_arn, "")
    if secret:
        return Plan(place, partition, "keys", secret.name, ask.namespace, role_arn, external_id)
    if not ask.ambient:
        raise provider.ambient_refused(ask, "ecr")
    return Plan(place, partition, "own", "", "", role_arn, external_id)


def _place(ask: provider.Ask, region: str) -> tuple[ecr_client.Place, str]:
    """Where to ask for a login of these servers, and in which partition.

    The servers tell it.  A host of one's own in front of ECR is taken only where `region` says what it fronts: a
    mistyped host must not get a login by accident.
    """
    if region and not ecr_hosts.is_region(region):
        raise provider.InvalidSpec(
            "InvalidRegion", "The region is no AWS region; write one such as eu-west-1.", field="ecr.region"
        )
    hosts: list[ecr_hosts.EcrHost] = []
    for server in ask.servers or (ask.server,):
        host = ecr_hosts.parse(server)
        if host is None and region:
            host = ecr_hosts.EcrHost(ecr_hosts.partition_of(region), region, fips=False, public=False)
        if host is None:
            field = "server" if server == ask.server else "aliases"
            raise provider.InvalidSpec(
                "NotAnEcrHost",
                f"The {'server' if field == 'server' else 'alias'} is no registry host of Amazon's, so it gets no "
                "ECR login; write ACCOUNT.dkr.ecr.REGION.amazonaws.com, another form of it, or public.ecr.aws.",
                field=field,
            )
        hosts.append(host)
    kinds = {(host.partition, host.region, host.public) for host in hosts}
    first = hosts[0]
    if region and first.region != region:
        raise provider.InvalidSpec(
            "RegionMismatch",
            "The region is not the one that the host of the server or of an alias names; remove ecr.region.",
            field="ecr.region",
        )
    if len(kinds) > 1:
        raise provider.InvalidSpec(
            "RegionMismatch",
            "An alias is of another region or kind than the server, where its login is not valid; "
            "declare it as a registry of its own.",
            field="aliases",
        )
    fips = any(host.fips for host in hosts)
    return ecr_client.Place(first.region, fips=fips, public=first.public), first.partition


def check_role(arn: str, partition: str, what: str, field: str) -> None:
    """Check a role's ARN, from an entry or from an annotation.

    Args:
        arn: the ARN.
        partition: the one of the registry.
        what: where the ARN stands, for the message.
        field: the field at fault.

    Raises:
        InvalidSpec: it is none, or of another partition.
    """
    match = _ROLE_ARN.fullmatch(arn)
    if match is None:
        raise provider.InvalidSpec(
            "InvalidRoleArn",
            f"{what} is not the ARN of a role; write arn:{partition}:iam::ACCOUNT:role/NAME.",
            field=field,
        )
    if match["partition"] != partition:
        raise provider.InvalidSpec(
            "PartitionMismatch",
            f"{what} is of another partition than the registry, which is in {partition}; credentials never cross "
            "partitions, so name a role of that one.",
            field=field,
        )


def _check_external_id(external_id: str, *, role_arn: str, federated: bool) -> None:
    if not external_id:
        return
    if federated:
        problem = "An external id does not go with serviceAccountRef, since AWS takes none there; remove it."
    elif not role_arn:
        problem = "An external id goes with a role; add ecr.roleArn or remove it."
    elif not _EXTERNAL_ID.fullmatch(external_id):
        problem = "The external id must be 2 to 1224 letters, digits or any of _+=,.@:/-."
    else:
        return
    raise provider.InvalidSpec("InvalidExternalId", problem, field="ecr.externalId")
