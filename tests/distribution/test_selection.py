"""Selectors, globs, protection and opting out decide as Kubernetes and a shell would."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.api import spec
from regcred.distribution import selection

LABELS = {"team": "shop", "tier": "1", "bare": ""}


def selector(**fields):
    return spec.Selector.model_validate(fields)


def row(key, operator, *values):
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "shop"}}, True),
        ({"matchLabels": {"team": "Shop"}}, False),
        ({"matchLabels": {"team": "shop", "tier": "1"}}, True),
        ({"matchLabels": {"team": "shop", "tier": "2"}}, False),
        ({"matchLabels": {"bare": ""}}, True),
        ({"matchLabels": {"absent": ""}}, False),
        ({"matchExpressions": [row("team", "In", "shop", "till")]}, True),
        ({"matchExpressions": [row("team", "In", "till")]}, False),
        ({"matchExpressions": [row("absent", "In", "")]}, False),
        ({"matchExpressions": [row("team", "NotIn", "shop")]}, False),
        ({"matchExpressions": [row("team", "NotIn", "till")]}, True),
        ({"matchExpressions": [row("absent", "NotIn", "till")]}, True),
        ({"matchExpressions": [row("bare", "Exists")]}, True),
        ({"matchExpressions": [row("absent", "Exists")]}, False),
        ({"matchExpressions": [row("bare", "DoesNotExist")]}, False),
        ({"matchExpressions": [row("absent", "DoesNotExist")]}, True),
        ({"matchExpressions": [row("team", "Exists"), row("tier", "In", "2")]}, False),
        ({"matchLabels": {"team": "shop"}, "matchExpressions": [row("tier", "In", "1")]}, True),
        ({"matchLabels": {"team": "till"}, "matchExpressions": [row("tier", "In", "1")]}, False),
    ],
)
def test_label_selector(fields, expected):
    """Every requirement has to hold; a missing label satisfies NotIn and DoesNotExist only."""
    assert selection.matches_labels(selector(**fields), LABELS) is expected


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ([], "default", False),
        (["default"], "default", True),
        (["default"], "default2", False),
        (["fault"], "default", False),
        (["*"], "anything", True),
        (["team-*"], "team-", True),
        (["team-*"], "steam-a", False),
        (["a", "b*"], "bc", True),
        (["build-?"], "build-1", True),
        (["build-?"], "build-12", False),
        (["build-[a-c]"], "build-b", True),
        (["build-[!a-c]"], "build-b", False),
        (["a.b"], "axb", False),
        (["a*b*c"], "abbc", True),
    ],
)
def test_globs(patterns, name, expected):
    """A name matches if one of the shell globs covers the whole of it; no glob matches nothing."""
    assert selection.matches_globs(patterns, name) is expected


@given(
    patterns=st.lists(st.text("ab*?[]!-.", max_size=6), max_size=4),
    name=st.text("ab-.", min_size=1, max_size=6),
)
def test_globs_together_match_as_each_alone(patterns, name):
    """Many globs match exactly where one of them does."""
    expected = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    assert selection.matches_globs(patterns, name) is expected


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, {"shop", "team-a", "team-sandbox", "other"}),
        ({"names": ["team-*"]}, {"team-a", "team-sandbox"}),
        ({"names": ["team-*", "shop"], "exclude": ["*-sandbox"]}, {"team-a", "shop"}),
        ({"exclude": ["*-sandbox"]}, {"shop", "team-a", "other"}),
        ({"selector": {}}, {"shop", "team-a", "team-sandbox", "other"}),
        ({"selector": {"matchLabels": {"team": "shop"}}}, {"shop"}),
        ({"selector": {"matchLabels": {"team": "shop"}}, "names": ["other"]}, {"shop", "other"}),
        ({"selector": {"matchLabels": {"team": "shop"}}, "exclude": ["shop"]}, set()),
        ({"selector": {"matchLabels": {"team": "none"}}}, set()),
    ],
)
def test_namespace_selection(fields, chosen):
    """Selector or names choose, exclude always wins, and with neither of the two every namespace is chosen."""
    namespaces = {"shop": LABELS, "team-a": {}, "team-sandbox": {}, "other": {"team": "other"}}
    wanted = spec.Namespaces.model_validate(fields)
    assert {name for name, labels in namespaces.items() if selection.selects(wanted, name, labels)} == chosen


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kube-system", True),
        ("kube-public", True),
        ("kube-node-lease", True),
        ("regcred-system", True),
        ("openshift-ingress", True),
        ("kube-system-of-mine", False),
        ("default", False),
    ],
)
def test_protection(name, expected):
    """The system's namespaces, the operator's own and those of the settings are refused, by whole name or glob."""
    assert selection.protected(name, ("regcred-system", "openshift-*")) is expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"regcred.io/ignore": "true"}, True),
        ({"regcred.io/ignore": "True"}, False),
        ({"regcred.io/ignore": "false"}, False),
        ({"ignore": "true"}, False),
        ({}, False),
    ],
)
def test_opting_out(labels, expected):
    """A namespace opts out by the one label with the one value."""
    assert selection.opted_out(labels) is expected
