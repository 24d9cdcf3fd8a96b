"""A view holds the few facts that decisions need, whatever else the object says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.api import names
from regcred.cluster import views

OURS = {
    "labels": {"app.kubernetes.io/managed-by": "regcred"},
    "annotations": {"regcred.io/contributors": '{"uid-a": {"from": "ClusterRegistryCredential/a"}}'},
}


def body(**meta):
    return {"metadata": {"name": "regcred", "namespace": "team-a", "uid": "u", "resourceVersion": "7"} | meta}


def fields(manager, fields_v1, **more):
    return {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields_v1} | more


def with_contributors(text):
    return body(labels=OURS["labels"], annotations={"regcred.io/contributors": text})


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        ("2", "1", True),
        ("1", "1", True),
        ("1", "2", False),
        ("10", "9", True),
        ("9", "10", False),
        ("", "10", True),
        ("10", "", True),
        ("opaque", "10", True),
        ("100000000000000000000", "99999999999999999999", True),
    ],
)
def test_newer(version, than, expected):
    """Resource versions compare as numbers; of what is no number the latest arrival counts."""
    assert views.newer(version, than) is expected


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, {"labels": {}, "terminating": False}),
        ({"labels": {"team": "shop"}}, {"labels": {"team": "shop"}, "terminating": False}),
        ({"labels": None}, {"labels": {}, "terminating": False}),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"labels": {}, "terminating": True}),
    ],
)
def test_namespace(meta, expected):
    """Of a namespace its labels count, and whether it is on its way out."""
    view = views.namespace(body(**meta))
    assert {"labels": dict(view.labels), "terminating": view.terminating} == expected
    assert (view.name, view.uid, view.version) == ("regcred", "u", "7")


@pytest.mark.parametrize(
    ("entries", "listed"),
    [(None, ()), ([], ()), ([{"name": "b"}, {"name": "a"}, {"name": "b"}], ("b", "a", "b")), ([{}], ("",))],
)
def test_account_lists(entries, listed):
    """The list is taken as it stands: in order, doubles included."""
    assert views.account({**body(), "imagePullSecrets": entries}).pull_secrets == listed
    assert views.account(body()).pull_secrets == ()


@pytest.mark.parametrize(
    ("annotations", "ignored"),
    [(None, False), ({"regcred.io/ignore": "true"}, True), ({"regcred.io/ignore": "yes"}, False)],
)
def test_account_opts_out(annotations, ignored):
    """An account opts out by the one annotation with the one value."""
    assert views.account(body(annotations=annotations)).ignored is ignored


@pytest.mark.parametrize(
    ("managed", "expected"),
    [
        (None, False),
        ([fields("regcred", {"f:imagePullSecrets": {}})], True),
        ([fields("regcred", {"f:imagePullSecrets": {}}, operation="Update")], True),
        ([fields("kubectl-edit", {"f:imagePullSecrets": {}})], False),
        ([fields("regcred", {"f:secrets": {}})], False),
        ([fields("kubectl-edit", {"f:x": {}}), fields("regcred", {"f:imagePullSecrets": {}})], True),
        ([fields("regcred", {"f:imagePullSecrets": {}}, subresource="token")], False),
        ([{"manager": "regcred"}], False),
    ],
)
def test_account_is_managed(managed, expected):
    """The list is ours where our field manager owns it."""
    assert views.account(body(managedFields=managed)).managed is expected


@pytest.mark.parametrize(
    ("labels", "annotations", "ours"),
    [
        (OURS["labels"], OURS["annotations"], True),
        (OURS["labels"], {"regcred.io/contributors": "{}"}, True),
        (OURS["labels"], {}, False),
        (OURS["labels"], None, False),
        ({}, OURS["annotations"], False),
        ({"app.kubernetes.io/managed-by": "Helm"}, OURS["annotations"], False),
        (OURS["labels"], {"regcred.io/contributors": ""}, False),
        (OURS["labels"], {"regcred.io/contributors": "not json"}, False),
    ],
)
def test_whose_secret(labels, annotations, ours):
    """A Secret is ours if it carries both our label and our annotation."""
    assert views.secret(body(labels=labels, annotations=annotations)).ours is ours


def test_contributors():
    """The annotation tells each resource's UID, its name for people, and whether its logins are retained."""
    told = {"b": {"from": "k/b", "deletionPolicy": "Retain"}, "a": {"from": "k/a", "deletionPolicy": "Delete"}}
    assert views.secret(with_contributors(json.dumps(told))).contributors == (
        views.Contributor("a", "k/a", False),
        views.Contributor("b", "k/b", True),
    )


def test_servers():
    """The annotation tells each server's resource, end and version."""
    told = {
        "quay.io": {"from": "k/a", "uid": "a", "expires": "2026-03-01T13:00:00Z", "version": "v1"},
        "https://index.docker.io/v1/": {"from": "k/b", "uid": "b"},
    }
    view = views.secret(body(annotations={"regcred.io/servers": json.dumps(told)}))
    assert view.servers == (
        views.Standing("https://index.docker.io/v1/", "b"),
        views.Standing("quay.io", "a", "2026-03-01T13:00:00Z", "v1"),
    )


HOSTILE = [
    "[" * 200_000,
    '{"a":' * 100_000,
    "[]",
    "null",
    "1" * 10_000,
    '{"a": null}',
    '{"a": "text"}',
    '{"a": []}',
    '{"a": {}}',
    '{"a": {"from": "\\ud800"}}',
    '{"\\ud800": {"from": "k/a"}}',
    '{"a": {"from": "k/a\\nWarning: fake"}}',
    '{"a": {"from": ["k/a"]}}',
    '{"": {"from": "k/a"}}',
    '{"a": {"from": ""}}',
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:24])
def test_hostile_annotations(text):
    """Whatever a stranger writes into our annotations, the view is made, and the Secret is not taken for ours."""
    view = views.secret(with_contributors(text))
    assert view.contributors == ()
    assert not view.ours or text == "[]"
    assert views.secret(body(annotations={"regcred.io/servers": text})).servers == ()


@pytest.mark.parametrize(
    "row", ['{"uid": "\\udfff"}', '{"uid": "a", "expires": 1}', '{"uid": "a", "version": "\\u0000"}', '{"uid": 1}']
)
def test_hostile_rows(row):
    """A row of servers that was not written by us counts for nothing."""
    assert views.secret(body(annotations={"regcred.io/servers": f'{{"quay.io": {row}}}'})).servers == ()


@given(contributors=st.text() | st.recursive(st.text(), st.lists).map(json.dumps), servers=st.text())
def test_views_are_made_of_anything(contributors, servers):
    """No text in an annotation keeps a view from being made, nor gets into it unchecked."""
    view = views.secret(
        body(
            labels=OURS["labels"],
            annotations={"regcred.io/contributors": contributors, "regcred.io/servers": servers},
        )
    )
    for row in view.contributors:
        assert (row.uid + row.key).isascii()
    for standing in view.servers:
        assert (standing.server + standing.uid + standing.expires).isascii()


@pytest.mark.parametrize(
    ("managed", "owned"),
    [
        (None, False),
        ([fields("regcred", {"f:data": {"f:.dockerconfigjson": {}}})], True),
        ([fields("regcred", {"f:data": {".": {}, "f:other": {}}})], False),
        ([fields("regcred", {"f:data": None})], False),
        ([fields("kubectl", {"f:data": {"f:.dockerconfigjson": {}}})], False),
        (
            [
                fields("kubectl", {"f:data": {"f:.dockerconfigjson": {}}}),
                fields("regcred", {"f:data": {"f:.dockerconfigjson": {}}}),
            ],
            True,
        ),
    ],
)
def test_whose_data(managed, owned):
    """The data is as we wrote it while our field manager owns it."""
    assert views.secret(body(managedFields=managed)).data_owned is owned


def test_owners_that_we_set():
    """Only the owner references that our field manager set are ours to compare; those of others are theirs."""
    references = [{"uid": "a"}, {"uid": "b"}, {"uid": "c"}]
    managed = [
        fields("regcred", {"f:metadata": {"f:ownerReferences": {'k:{"uid":"c"}': {}, 'k:{"uid":"a"}': {}}}}),
        fields("other", {"f:metadata": {"f:ownerReferences": {'k:{"uid":"b"}': {}}}}),
        fields("regcred", {"f:metadata": {"f:labels": {}}}, operation="Update"),
    ]
    assert views.secret(body(ownerReferences=references, managedFields=managed)).owners == ("a", "c")
    assert views.secret(body(ownerReferences=references)).owners == ()
    assert views.secret(body(managedFields=managed)).owners == ()


@pytest.mark.parametrize(
    ("meta", "adopt", "terminating"),
    [
        ({}, False, False),
        ({"annotations": {"regcred.io/adopt": "true"}}, True, False),
        ({"annotations": {"regcred.io/adopt": "1"}}, False, False),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, False, True),
    ],
)
def test_states_of_a_secret(meta, adopt, terminating):
    """Consent to adoption and a pending deletion are seen."""
    view = views.secret(body(**meta))
    assert (view.adopt, view.terminating) == (adopt, terminating)


def test_equal_lists_are_one_object():
    """Thousands of accounts that list the same names share one tuple."""
    entries = [{"name": "shared-x"}, {"name": "shared-y"}]
    first, second = (views.account({**body(uid=uid), "imagePullSecrets": list(entries)}) for uid in "ab")
    assert first.pull_secrets is second.pull_secrets


def test_no_login_in_a_view():
    """Even of a whole Secret a view keeps no data."""
    view = views.secret({**body(**OURS), "data": {names.SECRET_KEY: "aHVudGVyMg=="}})
    assert "aHVudGVyMg" not in repr(view)
