"""`explain` names the true cause, and the next step that it names works: on the real control plane and registries.

There is no kubelet here, so what one writes about a pod is written by the test, in the kubelet's own words; the Secrets, the
accounts, the operator and the registries are real, and "it works" is said by the registry itself.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.operator_process import NAMESPACE, OperatorProcess
from dev.registry import Registry
from dev.waiting import eventually
from tests.e2e.commands_support import Stage, explain, filled, login, paste, regcred
from tests.e2e.conftest import World

BACK_OFF = 'Back-off pulling image "{image}"'
UNAUTHORISED = (
    'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to authorize: failed to '
    "fetch anonymous token: unexpected status from GET request to http://127.0.0.1/token: 401 Unauthorized"
)


class Scene(Stage):
    """One namespace that is served, and one resource, `login`, that serves it; both shared by what only looks."""

    def __init__(self, world: World, registry: Registry) -> None:
        super().__init__(world)
        self.registry = registry
        self.image = f"{registry.host}/private/app:1"
        self.source = ""

    async def works(self, *words: str) -> None:
        """Wait until `explain` says that the registry accepts what a kubelet would send."""

        async def check() -> bool:
            told = await explain(self.world, *words, "--verify")
            return told["code"] == 0 and told["registrySays"][-1]["outcome"] == "Verified"

        await eventually(check, f"{words} to work", seconds=60, every=0.2)


@pytest.fixture(scope="module")
async def scene(installed: Cluster, shared_operator: OperatorProcess, registry: Registry) -> AsyncIterator[Scene]:
    """A namespace `<id>-a` with a pod `early` from before the resource, and a pod `late` from after it."""
    if not shared_operator.running:
        await shared_operator.start()
    world = World(installed, shared_operator)
    made = Scene(world, registry)
    (namespace,) = await world.namespaces("a")

    async def account() -> bool:
        return await world.pull_secrets(namespace) is not None

    await eventually(account, "the default account", seconds=60)
    await made.workload(namespace, "early", made.image)
    await made.pod(namespace, "early-0", made.image, workload="early")
    await made.pod(namespace, "bare", made.image)
    made.source = await world.login("alice", "s3cret")
    await world.declare(
        {"server": registry.host, "login": {"secretRef": {"name": made.source}}},
        {"server": "quay.io", "login": {"secretRef": {"name": made.source}}},
    )
    await world.ready()
    await world.served(namespace)
    yield made
    await world.clean()


@pytest.fixture
def namespace_a(scene: Scene) -> str:
    """The namespace that is served."""
    return f"{scene.world.id}-a"


async def test_a_new_pod_works(scene: Scene, namespace_a: str) -> None:
    """A pod that was created after its entry has a login from the resource, and the registry accepts it."""
    await scene.pod(namespace_a, "late", scene.image)
    told = await explain(scene.world, "pod", "late", "-n", namespace_a, "--verify")
    assert (told["code"], told["cause"]) == (0, "Works")
    assert told["logins"][0]["from"] == f"ClusterRegistryCredential/{scene.world.id}"
    assert told["registrySays"][0]["outcome"] == "Verified"


async def test_pod_older_than_its_entry(scene: Scene, namespace_a: str) -> None:
    """A pod of a Deployment that was created before its entry; deleted as the step says, its successor works."""
    await scene.waits(namespace_a, "early-0", UNAUTHORISED.format(image=scene.image), reason="ErrImagePull")
    told = await explain(scene.world, "pod", "early-0", "-n", namespace_a)
    assert (told["code"], told["cause"]) == (1, "PodOlder")
    await paste(scene.world, told["step"]["command"])
    await scene.succeed(namespace_a, "early", "early-1")
    await scene.works("pod", "early-1", "-n", namespace_a)


async def test_bare_pod_older_than_its_entry(scene: Scene, namespace_a: str) -> None:
    """A pod that nobody would make anew is replaced by the step itself, and then works."""
    await scene.waits(namespace_a, "bare", BACK_OFF.format(image=scene.image))
    told = await explain(scene.world, "pod/bare", "-n", namespace_a)
    assert told["cause"] == "PodOlder"
    await paste(scene.world, told["step"]["command"])
    await scene.works("pod/bare", "-n", namespace_a)


async def test_deployment_with_a_list_of_its_own(scene: Scene, namespace_a: str) -> None:
    """A template with imagePullSecrets of its own misses the Secret; patched as the step says, its pods work."""
    await scene.pull_secret(namespace_a, "mine", login("registry.example.com", "me", "pw"))
    await scene.workload(namespace_a, "own", scene.image, lists=("mine",))
    await scene.succeed(namespace_a, "own", "own-0")
    await scene.waits(namespace_a, "own-0", UNAUTHORISED.format(image=scene.image))
    told = await explain(scene.world, "deployment/own", "-n", namespace_a)
    assert (told["cause"], told["lists"]) == ("OwnList", ["mine"])
    await paste(scene.world, told["step"]["command"])
    await scene.succeed(namespace_a, "own", "own-0")
    await scene.works("deployment/own", "-n", namespace_a)


async def test_bare_pod_with_a_list_of_its_own(scene: Scene, namespace_a: str) -> None:
    """The same for a pod of nobody's: the step writes the list, and keeps what was in it."""
    await scene.pod(namespace_a, "own-bare", scene.image, lists=("other",))
    told = await explain(scene.world, "pod", "own-bare", "-n", namespace_a)
    assert told["cause"] == "OwnList"
    await paste(scene.world, told["step"]["command"])
    await scene.works("pod", "own-bare", "-n", namespace_a)
    assert set((await explain(scene.world, "pod", "own-bare", "-n", namespace_a))["lists"]) == {"other", "regcred"}


async def test_account_missing_then_not_chosen(scene: Scene, namespace_a: str) -> None:
    """An account that is not there, then one that the resource does not name: two steps lead to a pull that works."""
    words = ("image", scene.image, "-n", namespace_a, "--service-account", "ghost")
    told = await explain(scene.world, *words)
    assert told["cause"] == "AccountMissing"
    await paste(scene.world, told["step"]["command"])
    told = await explain(scene.world, *words)
    assert told["cause"] == "AccountNotChosen"
    await paste(scene.world, told["step"]["command"])
    await scene.works(*words)


async def test_account_opted_out(scene: Scene, namespace_a: str) -> None:
    """An account with the annotation to be left alone; without it, it is served."""
    world = scene.world
    await scene.create(
        f"/api/v1/namespaces/{namespace_a}/serviceaccounts",
        {"metadata": {"name": "build", "annotations": {"regcred.io/ignore": "true"}}},
    )
    await world.cluster.kubectl(
        *("patch", "crcred", world.id, "--type=json", "-p"),
        json.dumps([{"op": "add", "path": "/spec/serviceAccounts/-", "value": "build"}]),
    )
    words = ("image", scene.image, "-n", namespace_a, "--service-account", "build")
    told = await explain(world, *words)
    assert told["cause"] == "AccountOptedOut"
    await paste(world, told["step"]["command"])
    await scene.works(*words)


@pytest.mark.parametrize(
    ("labels", "cause"),
    [({"test": "another"}, "NamespaceNotSelected"), ({"regcred.io/ignore": "true"}, "NamespaceOptedOut")],
)
async def test_namespace_left_out_by_its_labels(scene: Scene, labels: dict[str, str], cause: str) -> None:
    """A wrong label, or the label to be left alone, keeps the login away; the pod lists a Secret that is not there."""
    (namespace,) = await scene.world.namespaces(cause.lower(), labels=labels)
    words = ("image", scene.image, "-n", namespace)

    async def account() -> bool:
        return await scene.world.pull_secrets(namespace) is not None

    await eventually(account, "the default account", seconds=60)
    told = await explain(scene.world, *words)
    assert told["cause"] == cause
    await paste(scene.world, told["step"]["command"])
    await scene.works(*words)


async def test_namespace_that_is_protected(scene: Scene) -> None:
    """In kube-system no cluster resource serves, and the step is no command but a decision."""
    told = await explain(scene.world, "image", scene.image, "-n", "kube-system")
    assert (told["code"], told["cause"], told["step"]["command"]) == (1, "NamespaceProtected", "")


async def test_namespace_that_is_missing(scene: Scene) -> None:
    """There is no such namespace; the step creates it, and what it lacks next is its label."""
    name = f"{scene.world.id}-nowhere"
    told = await explain(scene.world, "image", scene.image, "-n", name)
    assert told["cause"] == "NamespaceMissing"
    await paste(scene.world, told["step"]["command"])
    scene.world.take("Namespace", name)
    assert (await explain(scene.world, "image", scene.image, "-n", name))["cause"] in (
        "NamespaceNotSelected",
        "AccountMissing",
    )


async def test_conflict(scene: Scene) -> None:
    """A Secret of that name that is not regcred's stands there; handed over as the step says, it is replaced."""
    name = f"{scene.world.id}-conflict"
    await scene.create("/api/v1/namespaces", {"metadata": {"name": name}})
    await scene.pull_secret(name, "regcred", login("quay.example.com", "somebody", "else"))
    await scene.world.namespaces("conflict")
    words = ("image", scene.image, "-n", name)

    async def found() -> bool:
        return (await explain(scene.world, *words))["cause"] == "Conflict"

    await eventually(found, "the conflict", seconds=60)
    await paste(scene.world, (await explain(scene.world, *words))["step"]["command"])
    await scene.works(*words)


async def test_suspended(scene: Scene, token_registry: Registry) -> None:
    """A resource that is suspended brings nothing; resumed, it does."""
    world = scene.world
    (namespace,) = await world.namespaces("suspended", labels={"test": "none"})
    source = await world.login("alice", "s3cret", name=f"{world.id}-suspended")
    assert token_registry.ca_file is not None
    await world.declare(
        {
            "server": token_registry.host,
            "login": {"secretRef": {"name": source}},
            "tls": {"caBundle": token_registry.ca_file.read_text()},
        },
        name=f"{world.id}-suspended",
        namespaces={"names": [namespace]},
        suspend=True,
    )
    words = ("image", f"{token_registry.host}/private/app:1", "-n", namespace)

    async def found() -> bool:
        return (await explain(world, *words))["cause"] == "Suspended"

    await eventually(found, "the suspension", seconds=60)
    await paste(world, (await explain(world, *words))["step"]["command"])
    await scene.works(*words)


async def test_login_missing(scene: Scene) -> None:
    """The resource's source is not there: the step, filled in, stores it where it is read."""
    world = scene.world
    (namespace,) = await world.namespaces("missing", labels={"test": "none"})
    source = f"{world.id}-nosource"
    world.take("Secret", source, NAMESPACE)
    await world.declare(
        {"server": scene.registry.host, "login": {"secretRef": {"name": source}}},
        name=f"{world.id}-missing",
        namespaces={"names": [namespace]},
    )
    words = ("image", scene.image, "-n", namespace)

    async def found() -> bool:
        return (await explain(world, *words))["cause"] == "LoginMissing"

    await eventually(found, "the missing login", seconds=60)
    told = await explain(world, *words)
    assert "SourceMissing" in told["explanation"]
    assert told["step"]["fillIn"]
    await paste(world, filled(told["step"]["command"], user="alice", password="s3cret"))
    await scene.works(*words)


async def test_login_that_the_registry_refuses(scene: Scene) -> None:
    """A wrong password: the kubelet's 401 alone says that it is refused, --verify why; stored anew, it works."""
    world = scene.world
    (namespace,) = await world.namespaces("refused", labels={"test": "none"})
    source = await world.login("alice", "wrong", name=f"{world.id}-refused")
    await world.declare(
        {"server": scene.registry.host, "login": {"secretRef": {"name": source}}},
        name=f"{world.id}-refused",
        namespaces={"names": [namespace]},
    )
    await world.served(namespace)
    await scene.pod(namespace, "web", scene.image)
    await scene.waits(namespace, "web", UNAUTHORISED.format(image=scene.image))
    words = ("pod", "web", "-n", namespace)
    assert (await explain(world, *words))["cause"] == "Refused"
    told = await explain(world, *words, "--verify")
    assert told["cause"] == "BadCredentials"
    await paste(world, filled(told["step"]["command"], user="alice", password="s3cret"))
    await scene.works(*words)


async def test_login_without_a_right(scene: Scene, token_registry: Registry) -> None:
    """The registry knows the user and gives it no right: bob may pull public images only."""
    world = scene.world
    (namespace,) = await world.namespaces("noright", labels={"test": "none"})
    source = await world.login("bob", "hunter2", name=f"{world.id}-bob")
    assert token_registry.ca_file is not None
    await world.declare(
        {
            "server": token_registry.host,
            "login": {"secretRef": {"name": source}},
            "tls": {"caBundle": token_registry.ca_file.read_text()},
        },
        name=f"{world.id}-noright",
        namespaces={"names": [namespace]},
    )
    await world.served(namespace)
    told = await explain(world, "image", f"{token_registry.host}/private/app:1", "-n", namespace, "--verify")
    assert (told["code"], told["cause"]) == (1, "NoRight")
    assert "user bob" in told["explanation"]


async def test_shadowed(scene: Scene) -> None:
    """A tenant's login beats the platform's and is refused; taken out as the step says, the platform's works."""
    world = scene.world
    (namespace,) = await world.namespaces("shadowed")
    await world.served(namespace)
    await world.login("alice", "wrong", name="own", namespace=namespace)
    for words in (
        ("create", "role", "regcred-own", "--verb=get,list,watch", "--resource=secrets", "--resource-name=own"),
        ("create", "rolebinding", "regcred-own", "--role=regcred-own", f"--serviceaccount={NAMESPACE}:regcred"),
    ):
        await world.cluster.kubectl("-n", namespace, *words)
    await world.declare(
        {"server": scene.registry.host, "login": {"secretRef": {"name": "own"}}}, name="own", namespace=namespace
    )
    await world.served(namespace, login=("alice", "wrong"))
    words = ("image", scene.image, "-n", namespace)
    told = await explain(world, *words, "--verify")
    assert told["cause"] == "Shadowed"
    assert f"ClusterRegistryCredential/{world.id}" in told["explanation"]
    await paste(world, told["step"]["command"])
    await scene.works(*words)


async def test_another_name_of_the_registry(scene: Scene, namespace_a: str) -> None:
    """The image names the registry otherwise than the resource does: published under that alias, the login is found."""
    image = scene.image.replace("127.0.0.1", "localhost")
    told = await explain(scene.world, "image", image, "-n", namespace_a)
    assert told["cause"] == "HostMismatch"
    await paste(scene.world, told["step"]["command"])
    await scene.works("image", image, "-n", namespace_a)


async def test_registry_that_nobody_declares(scene: Scene, namespace_a: str) -> None:
    """No resource and no pull Secret has a login for that host."""
    told = await explain(scene.world, "image", "ghcr.io/org/app:1", "-n", namespace_a)
    assert (told["code"], told["cause"]) == (1, "NotDeclared")


async def test_pull_secret_under_a_key_that_no_kubelet_finds(scene: Scene) -> None:
    """A hand-made Secret whose key ends in /v2 without a slash; written again as the step says, it works."""
    (namespace,) = await scene.world.namespaces("wrongkey", labels={"test": "none"})
    # Another registry than any that is declared, so that regcred has nothing to do with it.
    image = scene.image.replace("127.0.0.1", "127.0.0.2")
    key = f"https://{scene.registry.host.replace('127.0.0.1', '127.0.0.2')}/v2"
    await scene.pull_secret(namespace, "mine", login(key, "alice", "s3cret"))
    await scene.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "web"}})
    await scene.pod(namespace, "web", image, lists=("mine",), account="web")
    told = await explain(scene.world, "pod", "web", "-n", namespace)
    assert told["cause"] == "WrongKey"
    await paste(scene.world, filled(told["step"]["command"], user="alice", password="s3cret"))
    told = await explain(scene.world, "pod", "web", "-n", namespace)
    assert (told["code"], told["cause"]) == (0, "Works")


async def test_pull_secret_that_breaks_every_pull(scene: Scene, namespace_a: str) -> None:
    """One undecodable entry in one Secret of the list, and the kubelet sends nothing; written again, all works."""
    broken = {"auths": {"registry.example.com": {"auth": "bm9jb2xvbg=="}}}
    await scene.pull_secret(namespace_a, "broken", broken)
    await scene.pod(namespace_a, "poisoned", scene.image, lists=("regcred", "broken"))
    words = ("pod", "poisoned", "-n", namespace_a)
    told = await explain(scene.world, *words)
    assert told["cause"] == "Poisoned"
    assert "registry.example.com" in told["explanation"]
    command = filled(told["step"]["command"], host="registry.example.com", user="me", password="pw")
    await paste(scene.world, command)
    await scene.works(*words)


async def test_login_that_has_ended(scene: Scene) -> None:
    """A login that was left by a deleted resource and has ended: nothing renews it."""
    world = scene.world
    (namespace,) = await world.namespaces("ended", labels={"test": "none"})
    name = await world.declare(
        {"server": "ended.example.com", "login": {"secretRef": {"name": scene.source}}},
        name=f"{world.id}-ended",
        namespaces={"names": [namespace]},
        deletionPolicy="Retain",
    )
    await world.served(namespace)
    await world.cluster.kubectl("delete", "crcred", name)
    body = await world.secret(namespace)
    assert body is not None
    servers = json.loads(body["metadata"]["annotations"]["regcred.io/servers"])
    servers["ended.example.com"]["expires"] = "2026-01-01T00:00:00Z"
    await world.cluster.kubectl(
        "annotate", "--overwrite", "-n", namespace, "secret/regcred", f"regcred.io/servers={json.dumps(servers)}"
    )
    told = await explain(world, "image", "ended.example.com/app:1", "-n", namespace)
    assert (told["code"], told["cause"]) == (1, "Expired")
    assert told["logins"][0]["expires"] == "2026-01-01T00:00:00Z"


async def test_narrower_entry_hides_docker_hub(scene: Scene) -> None:
    """The kubelet uses the login for all of Docker Hub only where no narrower entry matches; that one is refused."""
    (namespace,) = await scene.world.namespaces("hub", labels={"test": "none"})
    content = {
        "auths": {
            **login("docker.io/myorg", "other", "pw")["auths"],
            **login("https://index.docker.io/v1/", "hub", "pw")["auths"],
        }
    }
    await scene.pull_secret(namespace, "hub", content)
    await scene.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "web"}})
    await scene.pod(namespace, "web", "myorg/app:1", lists=("hub",), account="web")
    await scene.waits(
        namespace,
        "web",
        "pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed",
    )
    told = await explain(scene.world, "pod", "web", "-n", namespace)
    assert told["cause"] == "HubHidden"


async def test_mended_after_the_last_failure(scene: Scene, namespace_a: str) -> None:
    """The login was written after the kubelet failed last: it will be tried again, and nothing is to be done."""
    await scene.pod(namespace_a, "mended", scene.image)
    await scene.waits(namespace_a, "mended", UNAUTHORISED.format(image=scene.image))
    before = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await scene.event(
        namespace_a, "mended", f'Failed to pull image "{scene.image}": rpc error: 401 Unauthorized', at=before
    )
    told = await explain(scene.world, "pod", "mended", "-n", namespace_a)
    assert (told["code"], told["cause"]) == (0, "Recovers")


KUBELET = {
    "ImageNotFound": "rpc error: code = NotFound desc = failed to pull and unpack image: {image}: not found",
    "WrongPlatform": "no match for platform in manifest sha256:0123: not found",
    "UntrustedCertificate": "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    "NoSuchHost": "dial tcp: lookup registry.invalid on 10.0.0.10:53: no such host",
    "Unreachable": "dial tcp 10.1.2.3:443: i/o timeout",
    "PlainHttp": "http: server gave HTTP response to HTTPS client",
    "RateLimited": "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.",
    "RegistryFault": "unexpected status from HEAD request to https://r/v2/app/manifests/1: 503 Service Unavailable",
    "NodeLimit": "pull QPS exceeded",
}


@pytest.mark.parametrize("cause", KUBELET)
async def test_what_the_kubelet_says(scene: Scene, namespace_a: str, cause: str) -> None:
    """A pull that fails for a reason that has nothing to do with logins is told as that, by status or by event."""
    name = cause.lower()
    message = KUBELET[cause].format(image=scene.image)
    await scene.pod(namespace_a, name, scene.image)
    if len(cause) % 2:
        await scene.waits(namespace_a, name, f"{BACK_OFF.format(image=scene.image)}: ErrImagePull: {message}")
    else:
        # As kubelets before 1.32 do it.
        await scene.waits(namespace_a, name, BACK_OFF.format(image=scene.image))
        await scene.event(namespace_a, name, f'Failed to pull image "{scene.image}": {message}')
    told = await explain(scene.world, "pod", name, "-n", namespace_a)
    assert (told["code"], told["cause"]) == (1, cause)
    assert told["step"]["text"]


@pytest.mark.parametrize(
    ("reason", "cause"), [("InvalidImageName", "InvalidName"), ("ErrImageNeverPull", "NeverPull")]
)
async def test_what_the_pod_itself_is_wrong_about(scene: Scene, namespace_a: str, reason: str, cause: str) -> None:
    """An image name that is none, and a pod that forbids to pull."""
    name = cause.lower()
    await scene.pod(namespace_a, name, scene.image)
    await scene.waits(namespace_a, name, "see the pod", reason=reason)
    assert (await explain(scene.world, "pod", name, "-n", namespace_a))["cause"] == cause


async def test_invalid_resource(scene: Scene) -> None:
    """A resource with a mistake that old API servers let through serves nobody, and is named with its field."""
    world = scene.world
    (namespace,) = await world.namespaces("invalid", labels={"test": "none"})
    await world.declare(
        {"server": "docker.io", "login": {"secretRef": {"name": scene.source}}},
        {"server": "index.docker.io", "login": {"secretRef": {"name": scene.source}}},
        name=f"{world.id}-invalid",
        namespaces={"names": [namespace]},
    )
    told = await explain(world, "image", "myorg/app:1", "-n", namespace)
    assert told["cause"] == "InvalidResource"
    assert "spec.registries[1].server" in told["explanation"]
    await world.cluster.kubectl("delete", "crcred", f"{world.id}-invalid")


async def test_somebody_who_may_not_look(scene: Scene, namespace_a: str) -> None:
    """Whoever may read pods and no Secrets is told so, with exit code 3, and not something that is guessed."""
    world = scene.world
    await world.cluster.kubectl("-n", namespace_a, "create", "serviceaccount", "viewer")
    await world.cluster.kubectl(
        *("-n", namespace_a, "create", "rolebinding", "viewer", "--clusterrole=view"),
        f"--serviceaccount={namespace_a}:viewer",
    )
    await scene.pod(namespace_a, "seen", scene.image)
    kubeconfig = await world.cluster.kubeconfig_for_service_account(namespace_a, "viewer")

    async def told() -> dict[str, Any]:
        try:
            return await explain(world, "pod", "seen", "-n", namespace_a, kubeconfig=kubeconfig)
        except AssertionError:
            return {}

    async def blind() -> bool:
        found = await told()
        return found.get("code") == 3 and found["cause"] == "CouldNotLook"

    await eventually(blind, "the refusal", seconds=60, every=0.5)


async def test_for_people_it_is_a_table_and_holds_no_login(scene: Scene, namespace_a: str) -> None:
    """Without -o it prints cause, facts and the step in words; no form of output holds the password."""
    words = ("image", scene.image, "-n", namespace_a)
    code, text = await regcred(scene.world, "explain", *words, "--verify")
    assert code == 0
    assert text.startswith("Works: ")
    assert "Registry says" in text
    for form in ("json", "yaml"):
        code, document = await regcred(scene.world, "explain", *words, "-o", form)
        text += document
    assert "s3cret" not in text
    assert "YWxpY2U6" not in text


async def test_usage(scene: Scene) -> None:
    """A kind that it does not know is a matter of usage, and what is not there cannot be looked at."""
    assert (await regcred(scene.world, "explain", "service", "web"))[0] == 2
    code, text = await regcred(scene.world, "explain", "pod", "no-such-pod", "-n", "default")
    assert code == 3
    assert "There is no pod no-such-pod" in text
