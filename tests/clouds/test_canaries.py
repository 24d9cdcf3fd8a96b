"""No secret is anywhere but where it belongs: looked for in every object of the API, the logs, the metrics.

Everything secret that went through the operator is known: what stands in the sources, what the clouds handed out on
the way (sessions, tokens of Kubernetes, Entra and Google), the logins, and what they say when they refuse.
"""

from __future__ import annotations

import re
from typing import Any

from dev.canaries import Search, all_objects, allowed_in, texts_of
from dev.clouds import google_faults
from tests.clouds.conftest import Outage, Stage
from tests.clouds.hub import Hub
from tests.clouds.local_clouds import OUTAGE_CANARY, Clouds

#: What the operator tells at DEBUG of each step in which it handles a secret.
STEPS = (
    r"Fetching ecr",
    r"Fetch acr\S* brought logins of \d+ servers as \S+, life \d+ s, after [\d.]+ s; next try in \d+ s",
    r"Fetch \S+ failed: \w+ \(\w+, 1 in a row\), after",
    r"Kept the logins of \d+ entries of ",
    r"Read the kept logins of \d+ resources",
    r"HEAD http\S+/v2/\S+/manifests/\S+ answered 401",
    r"The registry \S+ asks for b",
    r"The handshake with \S+ ended as \w+",
    r"In \S+: write of the Secret regcred \(new, \d+ bytes\): done",
    r"In \S+: write of the Secret regcred \(in place, \d+ bytes\): done",
    r"In \S+: edit of the service account default \(\+regcred\): done",
    r"Listed \d+ namespaces at version \d+",
)


async def test_canaries_are_nowhere_else(
    first: Stage, outage: Outage, hub: Hub, clouds: Clouds, figures: dict[str, Any]
) -> None:
    """Logins stand in target and cache Secrets, sources in sources, and nothing secret in anything else."""
    # What a user stores to be handed on as it is stands in both: a key in keyMode JsonKey, a password.
    passed_on = {
        mode.document[name] for mode in first.modes if mode.document for name in ("private_key", "private_key_id")
    }
    passed_on |= {"old-password", "new-password", "pw-for-one-host", "pw-for-nobody"}
    secrets = clouds.secrets()
    secrets["source"] |= {"mistyped-pw", "pw-of-the-victim"}
    secrets["source"] -= passed_on
    secrets |= {"passed on": passed_on, "foreign text": {OUTAGE_CANARY, google_faults.CANARY}}
    search = Search(secrets)
    assert len(secrets["login"]) > 60
    assert len(secrets["step"]) > 60
    objects = await all_objects(hub.cluster)
    kinds = {body["kind"] for body in objects}
    assert {"Secret", "ServiceAccount", "Event", "ClusterRegistryCredential", "Lease", "Namespace"} <= kinds
    seen: set[str] = set()
    for body in objects:
        found = search.kinds_in(texts_of(body))
        seen |= found
        meta = body["metadata"]
        assert found <= allowed_in(body), (body["kind"], meta.get("namespace"), meta["name"], found)
    # What is looked for can be found: a search that finds nothing anywhere proves nothing.
    assert seen == {"login", "source", "passed on"}

    assert "--log-level=DEBUG" in hub.operator.flags
    log = hub.operator.log.read_text(encoding="utf-8", errors="replace")
    # It has started anew in the outage, and read what it had kept.
    assert log.count("Started regcred") >= 2
    # At DEBUG there is a line about every step that handles a secret.
    for step in STEPS:
        assert re.search(step, log), step
    assert search.kinds_in(log) == set()
    assert search.kinds_in(await hub.operator.metrics()) == set()
    described = await hub.cluster.kubectl("describe", "crcred,rcred,events", "-A")
    assert search.kinds_in(described) == set()
    figures["canaries"] = {
        "secrets": {kind: len(values) for kind, values in secrets.items()},
        "spellings": len(search),
        "objects searched": len(objects),
        "characters of log at DEBUG searched": len(log),
    }
    assert [sum(attacker.calls.values()) for attacker in clouds.attackers] == [0, 0]
