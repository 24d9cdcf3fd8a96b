"""Where logins go, and how they stay there: selection, composition, drift, rivals, conflicts, deletion."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dev.processes import CommandError
from dev.waiting import eventually
from regcred.cluster import client as api
from regcred.cluster import errors
from tests.e2e.conftest import NAMESPACE, Entry, World


async def test_selector_globs_exclusions_and_opt_out_decide(world: World, entry: Entry) -> None:
    """Labels or names select; excluded, protected and opted-out namespaces hold nothing."""
    source = await world.login("alice", "s3cret")
    labelled, excluded = await world.namespaces("labelled", "labelled-sandbox", labels={"tier": world.id})
    named, other = await world.namespaces("named-1", "other")
    (opted_out,) = await world.namespaces("named-2", labels={"regcred.io/ignore": "true"})
    await world.declare(
        entry(source),
        namespaces={
            "selector": {"matchLabels": {"tier": world.id}},
            "names": [f"{world.id}-named-*", "kube-system", NAMESPACE],
            "exclude": ["*-sandbox"],
        },
    )
    told = await world.ready()
    assert told["status"]["namespaces"]["matched"] == 2
    await world.served(labelled, named)
    await world.bare(excluded, other, opted_out, "kube-system", NAMESPACE)


async def test_label_removed_takes_everything_back(world: World, entry: Entry) -> None:
    """A namespace that is not selected any more loses the Secret and the entry, and gets both back with the label."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(namespace)
    await world.cluster.kubectl("label", "namespace", namespace, "test-")
    await world.bare(namespace)
    await world.cluster.kubectl("label", "namespace", namespace, f"test={world.id}")
    await world.served(namespace)


async def test_several_resources_compose_into_one_secret(world: World, entry: Entry) -> None:
    """One Secret holds the union; for one server the namespaced resource wins, and the loser says by whom."""
    mine, other = await world.namespaces("mine", "other")
    await world.declare(
        entry(await world.login("platform", "one")),
        entry(await world.login("quay", "q", name=f"{world.id}-q"), server="quay.io"),
    )
    await world.served(mine, other, login=("platform", "one"))
    source = await world.login("team", "two", name="team-login", namespace=mine)
    await world.cluster.kubectl(
        "-n", mine, "create", "role", "regcred-source", "--verb=get,list,watch", "--resource=secrets",
        f"--resource-name={source}",
    )  # fmt: skip
    await world.cluster.kubectl(
        "-n", mine, "create", "rolebinding", "regcred-source", "--role=regcred-source",
        f"--serviceaccount={NAMESPACE}:regcred",
    )  # fmt: skip
    await world.declare(entry(source), name="own", namespace=mine)
    await world.served(mine, login=("team", "two"))
    assert set((await world.auths(mine)).values()) == {("team", "two"), ("quay", "q")}
    assert set((await world.auths(other)).values()) == {("platform", "one"), ("quay", "q")}

    async def shadowed() -> dict[str, Any] | None:
        rows = (await world.resource())["status"]["registries"]
        return next((row for row in rows if row["reason"] == "Shadowed"), None)

    row = await eventually(shadowed, "the cluster resource to say Shadowed")
    assert f"RegistryCredential/{mine}/own" in row["message"]
    await world.cluster.kubectl("delete", "rcred", "own", "-n", mine)
    await world.served(mine, login=("platform", "one"))


@pytest.mark.parametrize("damage", ["data", "deleted", "label-annotation", "account"])
async def test_drift_is_repaired(world: World, entry: Entry, damage: str) -> None:
    """A Secret that was edited or deleted and an entry that was removed come back, without endless rewriting."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.ready()
    await world.served(namespace, login=("alice", "s3cret"))
    kubectl = world.cluster.kubectl
    if damage == "data":
        await kubectl(
            "patch", "secret", "regcred", "-n", namespace, "--type=merge", "-p",
            json.dumps({"stringData": {".dockerconfigjson": '{"auths":{}}'}}),
        )  # fmt: skip
    elif damage == "deleted":
        await kubectl("delete", "secret", "regcred", "-n", namespace)
    elif damage == "label-annotation":
        await kubectl("annotate", "--overwrite", "secret", "regcred", "-n", namespace, "regcred.io/revision=0")
    else:
        await kubectl("patch", "sa", "default", "-n", namespace, "--type=merge", "-p", '{"imagePullSecrets":[]}')
    await world.served(namespace, login=("alice", "s3cret"))
    assert await world.pull_secrets(namespace) == ["regcred"]


async def test_namespace_and_account_born_again_are_served_again(world: World, entry: Entry) -> None:
    """A namespace of the same name that is recreated, and a default account that is deleted, are served anew."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(namespace)
    await world.cluster.kubectl("delete", "serviceaccount", "default", "-n", namespace)
    await world.served(namespace)
    await world.cluster.kubectl("delete", "namespace", namespace, "--timeout=60s")
    await world.namespaces("a")
    await world.served(namespace)


async def test_foreign_secret_is_left_alone_and_the_rest_is_served(world: World, entry: Entry) -> None:
    """A foreign Secret of the name stays byte for byte; others are served; it recovers when the Secret goes."""
    taken, *free = await world.namespaces("taken", "b", "c")
    await world.cluster.kubectl("create", "secret", "generic", "regcred", "-n", taken, "--from-literal=mine=1")
    before = await world.secret(taken)
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(*free)

    async def counted() -> dict[str, Any] | None:
        told = await world.ready(status="False", reason="Conflict")
        expected = {"matched": 3, "synced": 2, "failed": 0, "conflicted": 1}
        return told if told["status"]["namespaces"] == expected else None

    told = await eventually(counted, "two namespaces to be served and one to be in conflict")
    assert [(row["namespace"], row["reason"]) for row in told["status"]["failures"]] == [(taken, "Conflict")]
    assert await world.secret(taken) == before
    assert await world.pull_secrets(taken) == []
    await world.cluster.kubectl("delete", "secret", "regcred", "-n", taken)
    await world.ready()
    await world.served(taken)


async def test_foreign_secret_is_adopted_with_its_owners_consent(world: World, entry: Entry) -> None:
    """The adopt annotation on a foreign pull Secret hands it over, in place."""
    (namespace,) = await world.namespaces("a")
    await world.cluster.kubectl(
        "create", "secret", "docker-registry", "regcred", "-n", namespace,
        "--docker-server=old.example.com", "--docker-username=old", "--docker-password=old",
    )  # fmt: skip
    uid = (await world.secret(namespace) or {})["metadata"]["uid"]
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.ready(status="False", reason="Conflict")
    await world.cluster.kubectl("annotate", "secret", "regcred", "-n", namespace, "regcred.io/adopt=true")
    await world.ready()
    assert set((await world.auths(namespace)).values()) == {("alice", "s3cret")}
    assert (await world.secret(namespace) or {})["metadata"]["uid"] == uid


async def test_entries_of_others_stay_in_their_order(world: World, entry: Entry) -> None:
    """Other names in imagePullSecrets stay where they are when ours comes, and when it goes."""
    (namespace,) = await world.namespaces("a")
    await world.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "app", "namespace": namespace},
            "imagePullSecrets": [{"name": "zeta"}, {"name": "alpha"}],
        }
    )
    await world.declare(entry(await world.login("alice", "s3cret")), serviceAccounts=["app"])
    await world.ready()
    assert await world.pull_secrets(namespace, "app") == ["zeta", "alpha", "regcred"]
    await world.cluster.kubectl("delete", "crcred", world.id)
    await world.bare(namespace)
    assert await world.pull_secrets(namespace, "app") == ["zeta", "alpha"]


async def test_ignored_account_is_left_alone(world: World, entry: Entry) -> None:
    """An account with the opt-out annotation is never changed."""
    (namespace,) = await world.namespaces("a")
    await world.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "mine", "namespace": namespace, "annotations": {"regcred.io/ignore": "true"}},
        }
    )
    await world.declare(entry(await world.login("alice", "s3cret")), serviceAccounts=["*"])
    told = await world.ready()
    assert await world.pull_secrets(namespace, "mine") == []
    assert told["status"]["serviceAccounts"] == {"matched": 1, "attached": 1}


async def test_suspended_resource_keeps_still(world: World, entry: Entry) -> None:
    """While suspended nothing new is served and nothing is taken away; afterwards everything is made up for."""
    (namespace,) = await world.namespaces("a")
    source = await world.login("alice", "old")
    await world.declare(entry(source))
    await world.served(namespace, login=("alice", "old"))
    await world.declare(entry(source), suspend=True)
    await world.ready(reason="Suspended")
    await world.login("alice", "new", name=source)
    (late,) = await world.namespaces("late")
    (marker,) = await world.namespaces("marker")
    # Another resource shows that the operator has been at work since.
    await world.declare(
        entry(source, server="marker.example.com"), name=f"{world.id}-m", namespaces={"names": [marker]}
    )
    await world.served(marker, login=("alice", "new"))
    assert set((await world.auths(namespace)).values()) == {("alice", "old")}
    assert await world.secret(late) is None
    await world.declare(entry(source), suspend=False)
    await world.served(namespace, late, login=("alice", "new"))


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_deletion_policy_is_kept(world: World, entry: Entry, policy: str) -> None:
    """Delete takes Secret and entry away with the resource; Retain leaves both."""
    (namespace,) = await world.namespaces("a")
    (marker,) = await world.namespaces("marker", labels={"test": "marker"})
    source = await world.login("alice", "s3cret")
    await world.declare(entry(source), deletionPolicy=policy)
    await world.served(namespace)
    await world.cluster.kubectl("delete", "crcred", world.id)
    if policy == "Delete":
        await world.bare(namespace)
        return
    await world.declare(entry(source), name=f"{world.id}-m", namespaces={"names": [marker]})
    await world.served(marker)
    await world.served(namespace, login=("alice", "s3cret"))
    assert "ownerReferences" not in (await world.secret(namespace) or {})["metadata"]


async def test_refresh_annotation_fetches_again_and_is_echoed(world: World, entry: Entry) -> None:
    """A new value of the refresh annotation is carried out and echoed in the status."""
    await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    before = (await world.ready())["status"]["registries"][0]["issuedAt"]
    await asyncio.sleep(1.1)  # issuedAt has whole seconds: the next one must be another
    await world.cluster.kubectl("annotate", "crcred", world.id, "regcred.io/refresh-requested-at=now-1")

    async def echoed() -> bool:
        status = (await world.resource())["status"]
        return status.get("lastHandledRefreshAt") == "now-1" and status["registries"][0]["issuedAt"] > before

    await eventually(echoed, "the refresh to be echoed")


async def test_two_writers_race_on_one_account(world: World, entry: Entry) -> None:
    """500 writes of a rival on one account: no foreign entry is lost, ours stands once, the order is kept."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(namespace)
    rival = Rival(world, namespace)
    await rival.run(500)

    async def settled() -> bool:
        listed = await world.pull_secrets(namespace) or []
        return listed.count("regcred") == 1

    await eventually(settled, "our entry to stand once")
    listed = await world.pull_secrets(namespace) or []
    assert [name for name in listed if name != "regcred"] == rival.expected
    assert listed.count("regcred") == 1


class Rival:
    """A well-behaved second writer: reads, changes its own entries, writes with the resourceVersion it read."""

    def __init__(self, world: World, namespace: str) -> None:
        self._world = world
        self._namespace = namespace
        self.expected: list[str] = []

    async def run(self, rounds: int) -> None:
        client = api.Client(api.login(str(self._world.cluster.admin_kubeconfig)))
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/default"
        try:
            for number in range(rounds):
                mine = f"rival-{number}"
                while True:
                    body = await client.get(path)
                    listed = [row["name"] for row in body.get("imagePullSecrets") or []]
                    # Every tenth round the rival also throws our entry out, as a careless writer does.
                    if number in (100, 200):
                        listed = [name for name in listed if name != "regcred"]
                    if len(self.expected) >= 5:
                        listed = [name for name in listed if name != self.expected[0]]
                    body["imagePullSecrets"] = [{"name": name} for name in [*listed, mine]]
                    try:
                        await client.request("PUT", path, body=body, tries=1)
                        break
                    except errors.Conflict:
                        continue
                if len(self.expected) >= 5:
                    self.expected.pop(0)
                self.expected.append(mine)
        finally:
            await client.close()


async def test_rival_that_never_gives_up_ends_in_a_truce(world: World, entry: Entry) -> None:
    """A rival that keeps removing our entry is let be after three times, and the status says Contended."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")))
    await world.served(namespace)
    for _ in range(5):
        await world.cluster.kubectl(
            "patch",
            "sa",
            "default",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            '{"imagePullSecrets":[{"name":"theirs"}]}',
        )
        try:
            await eventually(lambda: _lists(world, namespace), "our entry", seconds=3)
        except AssertionError:
            break
    told = await world.ready(status="False", reason="Contended")
    assert told["status"]["failures"][0]["namespace"] == namespace
    assert await world.pull_secrets(namespace) == ["theirs"]


async def _lists(world: World, namespace: str) -> bool:
    return "regcred" in (await world.pull_secrets(namespace) or [])


async def test_secret_of_another_name_needs_rbac_and_says_so(world: World, entry: Entry) -> None:
    """A secretName that RBAC does not pin stalls with the remedy, and touches nothing."""
    (namespace,) = await world.namespaces("a")
    await world.declare(entry(await world.login("alice", "s3cret")), secretName="elsewhere")
    told = await world.ready(status="False", reason="Forbidden")
    stalled = next(row for row in told["status"]["conditions"] if row["type"] == "Stalled")
    assert "resourceNames" in stalled["message"]
    assert await world.secret(namespace, "elsewhere") is None


async def test_other_secrets_are_forbidden_to_the_operator(world: World) -> None:
    """With its own permissions the operator can read no Secret of another name, anywhere but in its namespace."""
    (namespace,) = await world.namespaces("a")
    await world.cluster.kubectl("create", "secret", "generic", "other", "-n", namespace)
    kubeconfig = await world.cluster.kubeconfig_for_service_account(NAMESPACE, "regcred")
    for words in (
        ("get", "secret", "other", "-n", namespace),
        ("get", "secrets", "-n", namespace),
        ("get", "secrets", "-A"),
        ("get", "secrets", "-n", "kube-system"),
    ):
        with pytest.raises(CommandError, match=r"(?i)forbidden"):
            await world.cluster.kubectl(*words, kubeconfig=kubeconfig)
