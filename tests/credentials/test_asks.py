"""From registry entries to asks: what a resource may reach is decided here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.api import names, resource
from regcred.credentials import asks, plugins, provider
from regcred.credentials.providers.acr import AcrProvider
from regcred.credentials.providers.login import LoginProvider
from tests.credentials.keeper_support import EPOCH, HOME, FakeProvider, World, entry, spec

HOST = "one.example"
LOGIN = dockerconfig.Login("user", "password")
OTHER = dockerconfig.Login("other", "password")


class Nowhere:
    """A reader that nothing is asked of."""

    def __init__(self, namespace: str, block: str) -> None:
        self.namespace, self.block = namespace, block


def entries_of(
    body: dict[str, Any], *, policy: asks.Policy | None = None, **others: provider.ProviderFactory
) -> list[asks.Entry]:
    factories = {"fake": lambda: FakeProvider(World()), **others}
    maker = asks.Entries(plugins.Providers(factories), policy or asks.Policy(HOME), Nowhere)  # type: ignore[arg-type]
    parsed = resource.parse(body)
    assert parsed.spec is not None, parsed.problems
    return list(maker.of(parsed))


def only(body: dict[str, Any], **more: Any) -> asks.Entry:
    (found,) = entries_of(body, **more)
    return found


class TestReach:
    """What an ask may reach."""

    def test_of_the_platform(self) -> None:
        """A cluster resource reads the operator's namespace, and may use the operator's identity by default."""
        ask = only(spec("r", entry(HOST))).ask
        assert ask is not None
        assert (ask.tenant, ask.ambient, ask.namespace) == (False, True, HOME)
        assert isinstance(ask.cluster, Nowhere)
        assert ask.cluster.namespace == HOME

    def test_of_a_tenant(self) -> None:
        """A namespaced resource reads its own namespace, and may not use the operator's identity by default."""
        ask = only(spec("r", entry(HOST), namespace="team-a")).ask
        assert ask is not None
        assert (ask.tenant, ask.ambient, ask.namespace) == (True, False, "team-a")
        assert isinstance(ask.cluster, Nowhere)
        assert ask.cluster.namespace == "team-a"

    @pytest.mark.parametrize(
        ("registry", "block"),
        [
            (entry(HOST), "plugin.config"),
            ({"server": HOST, "login": {"secretRef": {"name": "source"}}}, "login"),
            ({"server": "contoso.azurecr.io"}, "acr"),
        ],
    )
    def test_where_its_fields_stand(self, registry: dict[str, Any], block: str) -> None:
        """The reader knows the provider's block, so that its errors name a field as the user wrote it."""
        found = only(spec("r", registry), login=LoginProvider, acr=AcrProvider)
        assert found.ask is not None
        assert isinstance(found.ask.cluster, Nowhere)
        assert found.ask.cluster.block == block
        maker = asks.Entries(plugins.Providers({}), asks.Policy(HOME), Nowhere)  # type: ignore[arg-type]
        assert maker.reader(found).block == block  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("policy", "platform", "tenant"),
        [
            (asks.Policy(HOME), True, False),
            (asks.Policy(HOME, cluster_ambient=False), False, False),
            (asks.Policy(HOME, tenant_ambient=True), True, True),
            (asks.Policy(HOME, cluster_ambient=False, tenant_ambient=True), False, True),
        ],
    )
    def test_policy(self, policy: asks.Policy, platform: bool, tenant: bool) -> None:
        """Each kind has a switch of its own for the operator's identity."""
        one = only(spec("r", entry(HOST)), policy=policy).ask
        other = only(spec("r", entry(HOST), namespace="team-a"), policy=policy).ask
        assert one is not None
        assert other is not None
        assert (one.ambient, other.ambient) == (platform, tenant)

    def test_a_tenant_in_the_operators_namespace(self) -> None:
        """A namespaced resource in the operator's own namespace is a tenant all the same."""
        ask = only(spec("r", entry(HOST), namespace=HOME)).ask
        assert ask is not None
        assert (ask.tenant, ask.ambient) == (True, False)


class TestKeys:
    """What may share a fetch."""

    def test_equal_asks_share(self) -> None:
        """Two cluster resources that ask for the same thing have one key."""
        assert only(spec("a", entry(HOST, "me"))).key == only(spec("b", entry("two.example", "me"))).key

    def test_trust_separates(self) -> None:
        """The platform, each tenant, and tenants with the operator's identity never share a key."""
        ambient = asks.Policy(HOME, tenant_ambient=True)
        found = [
            only(spec("r", entry(HOST, "me"))).key,
            only(spec("r", entry(HOST, "me"), namespace="team-a")).key,
            only(spec("r", entry(HOST, "me"), namespace="team-b")).key,
            only(spec("r", entry(HOST, "me"), namespace="team-a"), policy=ambient).key,
        ]
        assert len(set(found)) == 4

    def test_providers_separate(self) -> None:
        """Two providers that make the same key do not share a fetch."""
        one, two = entries_of(
            spec("r", entry(HOST, "me"), entry("two.example", "me", plugin="other")),
            other=lambda: FakeProvider(World()),
        )
        assert one.key != two.key


class TestFaults:
    """A fault of one entry stays with it."""

    def test_of_the_entry(self) -> None:
        """An entry that cannot work carries its error; the others are fine."""
        bad, good = entries_of(spec("r", entry(HOST, bad=True), entry("two.example")))
        assert bad.error is not None
        assert (bad.error.reason, bad.server, bad.provider_name) == ("InvalidSpec", HOST, "fake")
        assert good.error is None

    def test_of_a_provider_that_is_missing(self) -> None:
        """It is named, with those there are."""
        error = only(spec("r", entry(HOST, plugin="missing"))).error
        assert error is not None
        assert error.reason == "ProviderMissing"
        assert "fake" in error.message
        assert error.stalled

    @pytest.mark.parametrize("method", ["key", "sources"])
    def test_of_a_provider_that_breaks(self, method: str) -> None:
        """An exception of a plugin becomes a fixed text without its own."""

        class Broken(FakeProvider):
            pass

        def breaks(*_: object) -> str:
            raise RuntimeError("c4n4ry")

        setattr(Broken, method, breaks)
        error = only(spec("r", entry(HOST, plugin="broken")), broken=lambda: Broken(World())).error
        assert error is not None
        assert error.reason == "ProviderBroken"
        assert "c4n4ry" not in error.message
        assert "RuntimeError" in error.message

    @pytest.mark.parametrize("server", ["harbor.example.com", "localhost:5000"])
    def test_of_a_host_that_tells_no_provider(self, server: str) -> None:
        """Such an entry is refused by the API's own rules, before it gets here."""
        parsed = resource.parse(spec("r", {"server": server}))
        assert parsed.spec is None


class TestServers:
    """Servers and aliases."""

    def test_are_canonical(self) -> None:
        """Docker Hub has one name, in whichever way it is written; the row keeps the resource's spelling."""
        found = only(spec("r", entry("docker.io")))
        assert found.server == "docker.io"
        assert found.servers == (dockerconfig.DOCKER_HUB,)

    def test_aliases_follow(self) -> None:
        """The server stands first, its aliases after it, each once."""
        found = only(spec("r", entry(HOST, aliases=["b.example", "a.example"])))
        assert found.servers == (HOST, "b.example", "a.example")


names_ = st.sampled_from(["one.example", "two.example", "three.example", provider.ANY_SERVER])


class TestNarrow:
    """`Entry.narrow` and `Entry.covered`."""

    @given(
        st.dictionaries(names_, st.sampled_from([LOGIN, OTHER])),
        st.lists(names_.filter(lambda name: name != "*"), min_size=1, unique=True),
    )
    def test_gives_nothing_that_was_not_asked_for(
        self, logins: dict[str, dockerconfig.Login], servers: list[str]
    ) -> None:
        """An entry gets logins for its own servers only, its own name's before the one for any."""
        narrowed = asks.Entry(servers[0], tuple(servers)).narrow(provider.Grant(logins, "me", EPOCH))
        assert set(narrowed.logins) <= set(servers)
        for server in servers:
            assert narrowed.logins.get(server) == logins.get(server, logins.get(provider.ANY_SERVER))

    @given(st.dictionaries(names_, st.sampled_from([LOGIN, OTHER])))
    def test_an_import_never_holds_the_star(self, logins: dict[str, dockerconfig.Login]) -> None:
        """`*` is no server: it never gets into a docker config."""
        narrowed = asks.Entry("*", ("*",)).narrow(provider.Grant(logins, "me", EPOCH))
        assert set(narrowed.logins) == set(logins) - {"*"}

    def test_covered(self) -> None:
        """A grant covers an entry if it has a login for exactly its servers; an import is always covered."""
        wanted = asks.Entry(HOST, (HOST, "two.example"))
        assert not wanted.covered(provider.Grant({HOST: LOGIN}, "me", EPOCH))
        assert wanted.covered(provider.Grant({HOST: LOGIN, "two.example": OTHER}, "me", EPOCH))
        assert not asks.Entry(HOST, (HOST,)).covered(
            provider.Grant({HOST: LOGIN, "two.example": OTHER}, "me", EPOCH)
        )
        assert asks.Entry("*", ("*",)).covered(provider.Grant({}, "me", EPOCH))


class TestProof:
    """What identifies a proof."""

    def test_changes_with_what_is_proven(self) -> None:
        """Repository, reference and CA make the proof; without `verify` there is none."""
        pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        found = [
            entry(HOST, verify="org/app"),
            entry(HOST, verify="org/other"),
            entry(HOST, verify={"repository": "org/app", "reference": "v2"}),
        ]
        proofs = [only(spec("r", body)).proof for body in found]
        assert len(set(proofs)) == 3
        assert only(spec("r", entry(HOST))).proof == ""
        parsed = resource.parse(spec("r", entry(HOST, verify="org/app", tls={"caBundle": pem})))
        if parsed.spec is not None:  # where the API looks into the certificate it refuses this one
            assert only(spec("r", entry(HOST, verify="org/app", tls={"caBundle": pem}))).proof not in proofs

    def test_the_timeout_is_no_part_of_it(self) -> None:
        """A longer patience proves nothing else, so nothing is proven anew."""
        one = entry(HOST, verify={"repository": "org/app", "timeoutSeconds": 5})
        other = entry(HOST, verify={"repository": "org/app", "timeoutSeconds": 50})
        assert only(spec("r", one)).proof == only(spec("r", other)).proof


def test_kinds() -> None:
    """The kind alone decides whether a resource is a tenant's."""
    body = spec("r", entry(HOST), namespace="team-a")
    assert body["kind"] == names.NAMESPACED_KIND
    ask = only(body).ask
    assert ask is not None
    assert ask.tenant
