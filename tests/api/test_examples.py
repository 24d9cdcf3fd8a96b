"""The examples are right, and show what they say."""

from __future__ import annotations

import pytest

from regcred.api import hosts, resource
from tests.api import api_support

EXAMPLES = pytest.mark.parametrize("path", api_support.EXAMPLES, ids=lambda path: path.stem)


def test_there_are_examples_of_every_kind_and_provider():
    """Both kinds and every built-in provider are shown."""
    parsed = [
        resource.parse(document) for path in api_support.EXAMPLES for document in api_support.documents(path)
    ]
    assert {each.kind for each in parsed} == set(api_support.KINDS)
    entries = [entry for each in parsed for entry in each.spec.registries]
    assert {"login", "ecr", "gcr", "acr", None} <= {entry.provider_name for entry in entries}
    assert any(entry.server == "*" for entry in entries)


@EXAMPLES
def test_example_is_accepted_everywhere(path):
    """Each example passes the operator, the schema and every rule in CEL, without a field pruned."""
    for document in api_support.documents(path):
        assert resource.parse(document).problems == ()
        schema = api_support.schema_of(document["kind"])
        kept = api_support.stored(schema, document)
        assert api_support.violations(schema, kept) == []
        assert api_support.broken_rules(schema, kept) == []
        assert all(kept["spec"][name] == value for name, value in document["spec"].items() if name != "registries")


@EXAMPLES
def test_example_says_what_it_is_for(path):
    """Each example opens with a sentence for whoever looks for one."""
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("server", "provider", "region"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "ecr", True),
        ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", "ecr", True),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "ecr", True),
        ("123456789012.dkr-ecr-fips.us-east-1.on.aws/team/", "ecr", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None, False),
        ("x123456789012.dkr.ecr.eu-west-1.amazonaws.com", None, False),
        ("public.ecr.aws", "ecr", False),
        ("ecr-public.aws.com/x", "ecr", False),
        ("public.ecr.aws.example", None, False),
        ("gcr.io", "gcr", False),
        ("eu.gcr.io/project", "gcr", False),
        ("europe-west1-docker.pkg.dev", "gcr", False),
        ("docker.s3nsregistry.fr", "gcr", False),
        ("u-france-east1-docker.s3nsregistry.fr", "gcr", False),
        ("u-france-east1-docker.s3nsregistry.fr/project/images", "gcr", False),
        ("xdocker.s3nsregistry.fr", None, False),
        ("a.docker.s3nsregistry.fr", None, False),
        ("docker.s3nsregistry.fr.evil.example", None, False),
        ("evilgcr.io", None, False),
        ("gcr.io.example.com", None, False),
        ("contoso.azurecr.io", "acr", False),
        ("contoso.azurecr.cn", "acr", False),
        ("contoso.azurecr.us", "acr", False),
        ("contoso.westeurope.geo.azurecr.io", "acr", False),
        ("contoso.usgovvirginia.geo.azurecr.us/team/app", "acr", False),
        ("contoso.chinaeast2.geo.azurecr.cn", "acr", False),
        ("westeurope.geo.azurecr.io", None, False),
        ("contoso.a.b.geo.azurecr.io", None, False),
        ("contoso.westeurope.geo.azurecr.io.evil.example", None, False),
        ("azurecr.io", None, False),
        ("contoso.eastus.data.azurecr.io", None, False),
        ("contoso.azurecr.io:8443", None, False),
        ("docker.io", None, False),
        ("*", None, False),
    ],
)
def test_hosts_tell_their_cloud(server, provider, region):
    """A host belongs to a cloud by its whole name: no prefix, suffix or port passes for another."""
    assert hosts.provider_of(server) == provider
    assert hosts.names_region(server) == region
    assert (hosts.azure_cloud_of(server) is not None) == (provider == "acr")
