"""What the operator makes of objects in the cluster: never an exception, always the field and the way out."""

from __future__ import annotations

import datetime as dt

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regcred.api import model, names, problems, providers, resource, spec
from tests.api import api_strategies, api_support

ENTRY = {"server": "quay.io", "login": {"secretRef": {"name": "quay"}}}


def _cluster(**fields):
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.CLUSTER_KIND,
        "metadata": {"name": "platform"},
        "spec": {"registries": [ENTRY], "namespaces": {}} | fields,
    }


def _entry(**fields):
    return _cluster(registries=[{"server": "quay.io"} | fields])


@given(api_strategies.JSON)
def test_never_raises(body):
    """Whatever JSON stands in the cluster, parsing it gives a resource, with problems where it is none of ours."""
    parsed = resource.parse(body)
    assert parsed.problems
    assert parsed.spec is None


@given(api_strategies.broken())
def test_never_raises_on_nearly_good_ones(body):
    """A spec with anything in place of one part gives either a model or problems below spec, never both."""
    parsed = resource.parse(body)
    assert (parsed.spec is None) == bool(parsed.problems)
    assert all(problem.path.startswith("spec") for problem in parsed.problems)
    assert all(str(problem).isprintable() for problem in parsed.problems)


@given(api_strategies.GOOD)
def test_good_specs_have_no_problems(body):
    """What is right passes the operator, the schema and every rule in CEL."""
    assert resource.parse(body).problems == ()
    schema = api_support.schema_of(body["kind"])
    kept = api_support.stored(schema, body)
    assert api_support.violations(schema, kept) == []
    assert api_support.broken_rules(schema, kept) == []


@given(api_strategies.broken())
def test_operator_is_at_least_as_strict_as_the_api_server(body):
    """What the schema or CEL refuses, the operator refuses too: old API servers leave it to the operator."""
    if resource.parse(body).problems:
        return
    schema = api_support.schema_of(body["kind"])
    kept = api_support.stored(schema, body)
    assert api_support.violations(schema, kept) == []
    assert api_support.broken_rules(schema, kept) == []


def _rules(model_: type[model.Model], seen: set[type]) -> list[model.Rule]:
    if model_ in seen:
        return []
    seen.add(model_)
    found = list(model_.rules)
    for field in model_.model_fields.values():
        kinds = {problems._bare(field.annotation)}
        kinds |= {item for kind in list(kinds) for item in getattr(kind, "__args__", ())}
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, model.Model):
                found += _rules(kind, seen)
    return found


RULES = [rule for kind in spec.SPECS.values() for rule in _rules(kind, set())]
EXACT = {rule.message for rule in RULES if rule.cel and not rule.partial}
PARTIAL = {rule.message for rule in RULES if rule.cel and rule.partial}


@settings(max_examples=400)
@given(api_strategies.LOOSE)
def test_rules_mean_the_same_in_cel_and_in_python(body):
    """For specs whose fields are right one by one, both languages find the same rules broken."""
    parsed = spec.SPECS[body["kind"]].model_validate(body["spec"], by_alias=True, by_name=False)
    ours = {problem.message for problem in problems._broken_rules(parsed, "spec")}
    schema = api_support.schema_of(body["kind"])
    theirs = {message for _, message in api_support.broken_rules(schema, api_support.stored(schema, body))}
    assert theirs & EXACT == ours & EXACT
    assert theirs & PARTIAL <= ours & PARTIAL
    assert theirs <= EXACT | PARTIAL


def test_every_rule_has_a_bad_resource():
    """Each rule is broken by at least one of the bad resources, so none is there untested."""
    messages = {
        problem.message
        for path in api_support.BAD
        for document in api_support.documents(path)
        for problem in resource.parse(document).problems
    }
    assert {rule.message for rule in RULES} <= messages


SENTINEL = "hunter2sentinel"


@pytest.mark.parametrize("path", api_support.EXAMPLES, ids=lambda path: path.stem)
def test_values_are_never_repeated(path):
    """A password in any wrong place appears in no problem: values are never repeated, only names of fields."""
    for document in api_support.documents(path):
        for place in api_strategies.places(document["spec"]):
            for value in (SENTINEL, f"user:{SENTINEL}@host", {SENTINEL[:3]: SENTINEL}, [SENTINEL]):
                body = {**document, "spec": api_strategies.replaced(document["spec"], place, value)}
                assert SENTINEL not in repr(resource.parse(body).problems)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "kind: must be ClusterRegistryCredential or RegistryCredential; correct it"),
        ({"kind": "Secret"}, "kind: must be ClusterRegistryCredential or RegistryCredential; correct it"),
        ({"kind": names.NAMESPACED_KIND}, "spec: is required; add it, with registries below it"),
        (
            {"kind": names.NAMESPACED_KIND, "spec": []},
            "spec: must be an object, not a list; write its fields below",
        ),
        (_cluster(registry=[]), "spec.registry: unknown field; it is called registries, a list"),
        (_cluster(zzz=1), "spec.zzz: unknown field; remove it, or use one of registries, secretName"),
        (_cluster(**{"a\nb" * 40: 1}), "spec.a?ba?ba?b"),
        (_entry(username="x"), "spec.registries[0].username: unknown field; secrets never stand in a resource"),
        (_entry(gar={}), "spec.registries[0].gar: unknown field; the block for Google is called gcr"),
        (_cluster(namespaces={"matchLabels": {}}), "spec.namespaces.matchLabels: unknown field; it belongs below"),
        (
            _cluster(namespaces={"selector": {"matchLabels": {"a": 1}}}),
            "matchLabels.a: must be text, not a number",
        ),
        (_cluster(registries=[ENTRY] * 65), "spec.registries: must have at most 64 items, not 65; remove some"),
        (_cluster(registries=[]), "spec.registries: must have at least 1 item; add one"),
        (
            _cluster(namespaces={"names": []}),
            "spec.namespaces.names: must have at least 1 item; add one, or remove",
        ),
        (_cluster(deletionPolicy=1), "spec.deletionPolicy: must be one of Delete, Retain; choose one"),
        (_cluster(suspend=1), "spec.suspend: must be true or false, not a number; write it without quotes"),
        (_entry(plugin={"name": "x", "config": []}), "plugin.config: must be an object, not a list"),
        (
            _entry(plugin={"name": "x", "config": dict.fromkeys(map(str, range(65)))}),
            "plugin.config: must have at most 64 items, not 65",
        ),
    ],
)
def test_problem_names_field_and_remedy(body, expected):
    """Each kind of mistake is told with the field's path, what is wrong, and what to do."""
    assert any(expected in str(problem) for problem in resource.parse(body).problems)


def test_all_mistakes_are_told_at_once():
    """Somebody with three wrong fields reads of all three, each once."""
    body = _cluster(suspend="no", secretName="A", serviceAccounts=[1])
    paths = [problem.path for problem in resource.parse(body).problems]
    assert sorted(paths) == ["spec.secretName", "spec.serviceAccounts[0]", "spec.suspend"]


def test_null_is_absent():
    """A null is what the API server makes of it: nothing, so that the default holds."""
    parsed = resource.parse(_cluster(secretName=None, serviceAccounts=None, suspend=None))
    assert parsed.problems == ()
    assert parsed.spec.secret_name == "regcred"
    assert parsed.spec.service_accounts == ("default",)


def test_metadata():
    """Identity, age, deletion and the refresh request are taken from the metadata."""
    body = _cluster()
    body["metadata"] |= {
        "uid": "u-1",
        "generation": 7,
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "deletionTimestamp": "2026-01-03T03:04:05Z",
        "annotations": {names.REFRESH: "now"},
    }
    body["status"] = {"observedGeneration": 6}
    parsed = resource.parse(body)
    assert (parsed.name, parsed.namespace, parsed.uid, parsed.generation) == ("platform", "", "u-1", 7)
    assert parsed.creation_timestamp == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert parsed.deleting
    assert parsed.refresh_requested_at == "now"
    assert parsed.status == {"observedGeneration": 6}
    assert parsed.cluster


def test_key():
    """People read kind, namespace where there is one, and name."""
    assert resource.parse(_cluster()).key == "ClusterRegistryCredential/platform"
    tenant = {"kind": names.NAMESPACED_KIND, "metadata": {"namespace": "team-a", "name": "quay"}}
    assert resource.parse(tenant).key == "RegistryCredential/team-a/quay"


def test_equal_objects_are_equal_and_hash_alike():
    """Two views of one state are one, even with a plugin's config, which cannot be hashed."""
    body = _entry(plugin={"name": "quay", "config": {"a": [1]}})
    first, second = resource.parse(body), resource.parse(body)
    assert first == second
    assert hash(first) == hash(second)
    assert first != resource.parse(_cluster())


def test_unknown_age_precedes_nobody():
    """An object without creation time is taken for the youngest, so that it overrides nothing."""
    assert resource.parse(_cluster()).creation_timestamp > dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("fields", "name", "config"),
    [
        ({"login": {"secretRef": {"name": "quay"}}}, "login", providers.LoginBlock),
        ({"plugin": {"name": "quay-federation", "config": {"a": 1}}}, "quay-federation", dict),
        ({"server": "gcr.io", "gcr": {}}, "gcr", providers.GcrBlock),
        ({"server": "contoso.azurecr.io", "acr": {}}, "acr", providers.AcrBlock),
        ({"server": "public.ecr.aws", "ecr": {}}, "ecr", providers.EcrBlock),
        ({"server": "public.ecr.aws"}, None, type(None)),
    ],
)
def test_provider_of_an_entry(fields, name, config):
    """An entry tells the provider it names, and what that is told; neither where the host has to tell."""
    (entry,) = resource.parse(_entry(**fields)).spec.registries
    assert entry.provider_name == name
    assert isinstance(entry.provider_config, config)


def test_specs_are_immutable():
    """Nobody can change a spec that others look at too."""
    parsed = resource.parse(_cluster())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        parsed.spec.suspend = True


def test_models_are_made_in_python_by_attribute():
    """Code of ours uses the attributes' names, users only ever the fields'."""
    block = providers.EcrBlock(role_arn="arn:aws:iam::123456789012:role/puller")
    assert block.model_dump(by_alias=True, exclude_none=True) == {
        "roleArn": "arn:aws:iam::123456789012:role/puller"
    }
    assert resource.parse(_entry(ecr={"role_arn": block.role_arn})).problems


@given(st.lists(st.builds(problems.Problem, st.just("spec"), st.text(min_size=1)), min_size=1, max_size=6))
def test_summary_counts_what_it_leaves_out(found):
    """A summary tells the first problems in full and says how many more there are."""
    text = problems.summary(found, shown=2)
    assert str(found[0]) in text
    assert (f"And {len(found) - 2} more" in text) == (len(found) > 2)
