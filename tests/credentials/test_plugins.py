"""Finding providers: through one door, and no plugin breaks or displaces another."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

from regcred.api import conditions
from regcred.credentials import plugins, provider
from tests.credentials.keeper_support import FakeProvider, World


def providers(**factories: Any) -> plugins.Providers:
    return plugins.Providers(factories)


class TestInstalled:
    """The providers of this installation."""

    @pytest.mark.parametrize("name", ["acr", "ecr", "gcr", "login"])
    def test_built_in(self, name: str) -> None:
        """The four of our own are found by their entry points, and follow the protocol."""
        found = plugins.Providers().get(name)
        assert isinstance(found, provider.Provider)
        assert found.name == name

    @pytest.mark.parametrize(
        ("server", "name"),
        [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
            ("public.ecr.aws", "ecr"),
            ("europe-docker.pkg.dev", "gcr"),
            ("gcr.io", "gcr"),
            ("contoso.azurecr.io", "acr"),
            ("quay.io", None),
            ("docker.io", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ],
    )
    def test_inferred(self, server: str, name: str | None) -> None:
        """The host tells the provider of the clouds, and of nobody else."""
        assert plugins.Providers().infer(server) == name

    def test_no_sdk_is_loaded_for_nothing(self) -> None:
        """Finding, making and asking all providers for a host loads none of the heavy SDKs."""
        code = (
            "import sys\n"
            "from regcred.credentials import plugins\n"
            "found = plugins.Providers()\n"
            "assert found.infer('quay.io') is None\n"
            "heavy = {'boto3', 'botocore', 'google.auth', 'azure.identity', 'msal'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TestLoading:
    """When a provider is made, and what happens if that fails."""

    def test_on_demand_and_once(self) -> None:
        """A provider is made when it is first asked for, and kept."""
        made: list[FakeProvider] = []

        def factory() -> FakeProvider:
            made.append(FakeProvider(World()))
            return made[-1]

        found = providers(fake=factory)
        assert not made
        assert found.get("fake") is found.get("fake")
        assert len(made) == 1

    def test_missing(self) -> None:
        """A provider that is not there is named together with those that are."""
        with pytest.raises(provider.InvalidSpec, match=r"there is no provider 'nowhere'.*fake") as caught:
            providers(fake=lambda: FakeProvider(World())).get("nowhere")
        assert caught.value.reason == conditions.RegistryReason.PROVIDER_MISSING

    @pytest.mark.parametrize("error", [RuntimeError("c4n4ry"), KeyError("c4n4ry"), ImportError("c4n4ry")])
    def test_broken(self, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
        """A plugin that cannot be made says so with the kind of its error and no word of its text."""

        def factory() -> FakeProvider:
            raise error

        found = providers(broken=factory, fake=lambda: FakeProvider(World()))
        for _ in range(2):
            with pytest.raises(provider.InvalidSpec) as caught:
                found.get("broken")
            assert caught.value.reason == conditions.RegistryReason.PROVIDER_BROKEN
            assert type(error).__name__ in caught.value.message
            assert "c4n4ry" not in caught.value.message + caplog.text
        assert found.get("fake").name == "fake"

    def test_errors_do_not_pile_up(self) -> None:
        """The error of a broken plugin is a new one each time, so that no chain of frames grows with it."""
        found = providers(broken=lambda: None)
        caught: list[provider.InvalidSpec] = []
        for _ in range(3):
            try:
                found.get("broken")
            except provider.InvalidSpec as error:
                caught.append(error)
        assert len({id(error) for error in caught}) == 3

    @pytest.mark.parametrize("made", [None, object(), "provider"])
    def test_no_provider_at_all(self, made: object) -> None:
        """What does not follow the protocol is refused by name."""
        with pytest.raises(provider.InvalidSpec, match="does not follow the protocol"):
            providers(odd=lambda: made).get("odd")


class TestInference:
    """Plugins and the hosts they know."""

    def test_a_plugin_may_know_hosts(self) -> None:
        """A host that none of ours knows may be known by a plugin."""
        assert providers(fake=lambda: FakeProvider(World())).infer("a.fake.example") == "fake"

    def test_our_own_come_first(self) -> None:
        """A plugin does not take over a cloud's hosts, whatever its name."""

        class Greedy(FakeProvider):
            def serves(self, server: str) -> bool:
                return True

        found = providers(aaa=lambda: Greedy(World()))
        assert found.infer("123456789012.dkr.ecr.eu-west-1.amazonaws.com") == "ecr"
        assert found.infer("quay.io") == "aaa"
        assert found.names[:4] == plugins.BUILT_IN

    def test_a_broken_plugin_knows_nothing(self) -> None:
        """A plugin that breaks when it is asked for a host is passed over."""

        class Broken(FakeProvider):
            def serves(self, server: str) -> bool:
                raise RuntimeError("c4n4ry")

        found = providers(broken=lambda: Broken(World()), worse=lambda: None, fake=lambda: FakeProvider(World()))
        assert found.infer("a.fake.example") == "fake"

    def test_names_of_ours_are_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another distribution's entry point of one of our names is left out, and the log says so."""
        real = importlib.metadata.entry_points(group=plugins.GROUP)

        class Distribution:
            name = "evil-regcred"

        class Foreign:
            name, value, group = "ecr", "evil:Provider", plugins.GROUP
            dist = Distribution()

            def load(self) -> Any:
                raise AssertionError("loaded")

        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [*real, Foreign()])
        assert plugins.Providers().get("ecr").__class__.__module__.startswith("regcred.")
