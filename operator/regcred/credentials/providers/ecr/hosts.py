"""Which hosts are Amazon's container registries, since a login is only ever asked for, and stored, for those.

The grammar is the one that Amazon's own credential helper and kubelet plugin share, anchored, and made
stricter in one way: the region must belong to the partition that the host's ending stands for.  So whatever
a tenant writes as a server selects one of Amazon's endpoints or is refused.
"""

from __future__ import annotations

import dataclasses
import re

#: Public registries keep their control plane in one region of the one partition that has them.
PUBLIC_REGION = "us-east-1"
PUBLIC_HOSTS = frozenset({"public.ecr.aws", "ecr-public.aws.com"})

_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,2}-[0-9]{1,2}")
_PRIVATE = re.compile(
    r"(?P<account>[0-9]{12})\.dkr[.-]ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]{1,32})\."
    r"(?P<suffix>amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn"
    r"|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)
_PARTITION_PREFIXES = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("eusc-", "aws-eusc"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
)
_SUFFIX_PARTITIONS = {
    "amazonaws.com": frozenset({"aws", "aws-us-gov"}),
    "on.aws": frozenset({"aws", "aws-us-gov"}),
    "amazonaws.com.cn": frozenset({"aws-cn"}),
    "on.amazonwebservices.com.cn": frozenset({"aws-cn"}),
    "amazonaws.eu": frozenset({"aws-eusc"}),
    "c2s.ic.gov": frozenset({"aws-iso"}),
    "sc2s.sgov.gov": frozenset({"aws-iso-b"}),
    "cloud.adc-e.uk": frozenset({"aws-iso-e"}),
    "csp.hci.ic.gov": frozenset({"aws-iso-f"}),
}


@dataclasses.dataclass(frozen=True, slots=True)
class EcrHost:
    """A registry host of Amazon's, taken apart.

    Attributes:
        partition: the separate cloud it belongs to: `aws`, `aws-cn`, `aws-us-gov`, …  Identities never cross it.
        region: where its token is asked for.
        fips: whether the host is a FIPS 140 one, so that the token must come from a FIPS endpoint too.
        public: whether it is the public gallery, which has an API of its own.
    """

    partition: str
    region: str
    fips: bool
    public: bool


def parse(server: str) -> EcrHost | None:
    """Take a canonical server apart; None if it is no registry of Amazon's.

    Args:
        server: host, or host and repository prefix, as `dockerconfig.canonical_server` returns it.
    """
    host = server.partition("/")[0]
    if host in PUBLIC_HOSTS:
        return EcrHost("aws", PUBLIC_REGION, fips=False, public=True)
    match = _PRIVATE.fullmatch(host)
    if match is None or not is_region(match["region"]):
        return None
    partition = partition_of(match["region"])
    if partition not in _SUFFIX_PARTITIONS[match["suffix"]]:
        return None
    return EcrHost(partition, match["region"], fips=match["fips"] is not None, public=False)


def is_region(text: str) -> bool:
    """Say whether `text` has the form of a region's name."""
    return _REGION.fullmatch(text) is not None


def partition_of(region: str) -> str:
    """Return the partition of a region by its name; the commercial one where no other claims it."""
    return next((name for prefix, name in _PARTITION_PREFIXES if region.startswith(prefix)), "aws")
