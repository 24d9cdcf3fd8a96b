"""What is planned is written to a real API server: guarded, in order, and without touching what is not ours."""

from __future__ import annotations

import base64
import dataclasses
import json
import uuid

import pytest

from regcred.api import names
from regcred.cluster import client as api
from regcred.cluster import errors, mirror, views
from regcred.distribution import model, writer
from regcred.distribution.model import State
from tests.distribution.distribution_support import GHCR, NAME, QUAY, actions, contribution

THEIRS = base64.b64encode(b'{"auths":{"theirs.example.com":{"auth":"Zm9vOmJhcg=="}}}').decode()


async def test_create_and_attach(place):
    """The Secret is created as it was composed, and listed after the entries that were there."""
    await place.patch("app", "serviceaccounts", imagePullSecrets=[{"name": "theirs"}])
    a = await place.resource("a", {QUAY: "pw"})
    result = await place.serve(a)
    assert (result.failures, result.stale, result.writes) == ({}, False, 1)
    body = await place.read()
    assert body["type"] == "kubernetes.io/dockerconfigjson"
    assert body["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "regcred"}
    assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == [a.uid]
    assert await place.logins() == {QUAY: "pw"}
    assert await place.listed() == ["theirs", NAME]
    assert [(account.name, added) for account, added in result.attached] == [("app", (NAME,))]


async def test_view_after_a_write(place):
    """What the answer tells is what a watch will tell: ours, with our data, revision and owners."""
    a = await place.resource("a")
    await place.serve(a)
    answered = place.view()
    assert answered.ours
    assert answered.data_owned
    assert answered.owners == (a.uid,)
    assert answered == views.secret(await place.read())
    await place.look()
    assert place.plan(a).idle


async def test_same_again(place):
    """Writing the same again changes nothing, not even the resource version."""
    a = await place.resource("a")
    await place.serve(a)
    before = await place.read()
    plan = place.plan(dataclasses.replace(a, logins={QUAY: model.Published(*_login("a-quay"), "other")}))
    (write,) = plan.writes
    same = dataclasses.replace(write, annotations=before["metadata"]["annotations"])
    result = await place.hand.execute(model.Plan(writes=(same,)))
    assert result.writes == 1
    assert await place.read() == before


def _login(password):
    return (next(iter(contribution("x", {QUAY: password}).logins.values())).login,)


@pytest.mark.parametrize(
    "body",
    [
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": THEIRS}},
        {"type": "Opaque", "data": {"key": "eA=="}},
        {"type": "Opaque"},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": THEIRS}, "immutable": True},
    ],
    ids=["pull Secret", "opaque", "empty", "immutable"],
)
async def test_create_meets_a_foreign_secret(place, body):
    """A foreign Secret that appeared meanwhile is a conflict and stays byte for byte, and the next plan knows it."""
    a = await place.resource("a")
    plan = place.plan(a)
    assert actions(plan) == ["create regcred", "attach app regcred"]
    before = await place.create(NAME, **body)
    result = await place.hand.execute(plan)
    assert result.stale
    assert result.failures[NAME][0] == "Stale"
    assert await place.read() == before
    assert await place.listed() == []
    again = place.plan(a)
    assert again.idle
    assert again.outcomes[a.uid].state is State.CONFLICT


async def test_create_in_doubt(place):
    """Where a Secret may stand that is not seen yet it is looked for first, so that nothing it holds is lost."""
    kept = await place.resource("kept", {QUAY: "retained"}, retain=True)
    await place.serve(kept)
    await place.look()
    a = await place.resource("a", {GHCR: "pw"})
    (write,) = place.plan(a).writes
    unseen = model.Plan(writes=(dataclasses.replace(write, before=None),))
    blind_eyes = mirror.Mirror(lambda _namespace, _urgent: None)
    hand = writer.Writer(place.client, blind_eyes, lambda name: name == NAME)
    before = await place.read()
    assert (await hand.execute(unseen)).stale
    assert await place.read() == before
    assert blind_eyes.secrets.get(place.namespace, NAME) == place.view()


async def test_create_in_doubt_finds_nothing(place):
    """Where nothing stands, it is created all the same."""
    a = await place.resource("a", {QUAY: "pw"})
    hand = writer.Writer(place.client, place.seen, lambda _: True)
    assert (await hand.execute(place.plan(a))).writes == 1
    assert await place.logins() == {QUAY: "pw"}


@pytest.mark.parametrize("immutable", [False, True], ids=["changed", "made immutable"])
async def test_update_is_guarded_by_version(place, immutable):
    """A Secret that changed since it was seen is not overwritten; the next plan starts from what it is now."""
    a = await place.resource("a")
    await place.serve(a)
    renewed = dataclasses.replace(a, logins=contribution("a", {QUAY: "renewed"}).logins)
    plan = place.plan(renewed)
    changed = await place.patch(
        NAME, metadata={"annotations": {"theirs": "x"}}, **({"immutable": True} if immutable else {})
    )
    result = await place.hand.execute(plan)
    assert result.stale
    assert await place.read() == changed
    result = await place.hand.execute(place.plan(renewed))
    if immutable:
        assert result.failures[NAME][0] == "Invalid"
        assert "immutable" in result.failures[NAME][1]
        assert await place.read() == changed
    else:
        assert await place.logins() == {QUAY: "renewed"}
        assert (await place.read())["metadata"]["annotations"]["theirs"] == "x"


async def test_update_is_guarded_by_uid(place):
    """A Secret that was replaced by somebody else's since it was seen is left alone."""
    a = await place.resource("a")
    await place.serve(a)
    plan = place.plan(dataclasses.replace(a, logins=contribution("a", {QUAY: "renewed"}).logins))
    await place.client.request("DELETE", place.path(NAME))
    foreign = await place.create(NAME, data={"key": "eA=="})
    assert (await place.hand.execute(plan)).stale
    assert await place.read() == foreign
    assert place.plan(a).outcomes[a.uid].state is State.CONFLICT


async def test_update_of_what_is_gone(place):
    """A Secret that is gone since it was seen is created again by the next plan, and not by this one."""
    a = await place.resource("a")
    await place.serve(a)
    renewed = dataclasses.replace(a, logins=contribution("a", {QUAY: "renewed"}).logins)
    plan = place.plan(renewed)
    await place.client.request("DELETE", place.path(NAME))
    assert (await place.hand.execute(plan)).stale
    with pytest.raises(errors.NotFound):
        await place.read()
    again = place.plan(renewed)
    assert actions(again) == ["create regcred"]
    await place.hand.execute(again)
    assert await place.logins() == {QUAY: "renewed"}


async def test_renewal_keeps_the_uid(place):
    """A new login is written in place: the Secret keeps its UID, and the accounts are not touched."""
    a = await place.resource("a")
    await place.serve(a)
    before = place.view().uid
    account = await place.read("app", "serviceaccounts")
    await place.serve(dataclasses.replace(a, logins=contribution("a", {QUAY: "renewed"}).logins))
    assert place.view().uid == before
    assert await place.logins() == {QUAY: "renewed"}
    assert await place.read("app", "serviceaccounts") == account


async def test_account_that_changed(place):
    """An account that was changed since it was seen is not written; what was added to it stays."""
    a = await place.resource("a")
    plan = place.plan(a)
    changed = await place.patch("app", "serviceaccounts", imagePullSecrets=[{"name": "late"}, {"name": "later"}])
    result = await place.hand.execute(plan)
    assert result.stale
    assert result.attached == ()
    assert await place.read("app", "serviceaccounts") == changed
    result = await place.hand.execute(place.plan(a))
    assert (result.stale, result.failures) == (False, {})
    assert await place.listed() == ["late", "later", NAME]


@pytest.mark.parametrize("reborn", [True, False])
async def test_account_that_is_gone(place, reborn):
    """An account that is gone is not created, and one that took its place is planned for anew."""
    a = await place.resource("a")
    plan = place.plan(a)
    await place.client.request("DELETE", place.path("app", "serviceaccounts"))
    if reborn:
        await place.create("app", "serviceaccounts", imagePullSecrets=[{"name": "new"}])
    assert (await place.hand.execute(plan)).stale
    again = place.plan(a)
    assert actions(again) == (["attach app regcred"] if reborn else [])
    await place.hand.execute(again)
    if reborn:
        assert await place.listed() == ["new", NAME]
    else:
        with pytest.raises(errors.NotFound):
            await place.read("app", "serviceaccounts")


async def test_detach_and_delete(place):
    """What nobody asks for any more is taken out of the accounts, then deleted; foreign entries stay."""
    await place.patch("app", "serviceaccounts", imagePullSecrets=[{"name": "x"}])
    a = await place.resource("a")
    await place.serve(a)
    await place.patch("app", "serviceaccounts", imagePullSecrets=[{"name": "x"}, {"name": NAME}, {"name": "y"}])
    result = await place.serve()
    assert (result.deleted, result.failures) == (1, {})
    assert [(account.name, removed) for account, removed in result.detached] == [("app", (NAME,))]
    assert await place.listed() == ["x", "y"]
    with pytest.raises(errors.NotFound):
        await place.read()
    assert place.seen.secrets.departed(place.namespace, NAME) is None


async def test_deletion_is_guarded(place):
    """A Secret that changed since it was seen is not deleted, nor one that took its place."""
    a = await place.resource("a", accounts=())
    await place.serve(a)
    plan = place.plan(secret_names=[NAME])
    assert actions(plan) == ["delete regcred"]
    changed = await place.patch(NAME, metadata={"labels": {names.MANAGED_BY_LABEL: "somebody"}})
    assert (await place.hand.execute(plan)).stale
    assert await place.read() == changed
    assert place.plan().idle
    await place.client.request("DELETE", place.path(NAME))
    foreign = await place.create(NAME, data={"key": "eA=="})
    assert (await place.hand.execute(plan)).stale
    assert await place.read() == foreign


async def test_deletion_of_what_is_gone(place):
    """A Secret that somebody else has deleted needs no deletion, and that is no failure."""
    a = await place.resource("a", accounts=())
    await place.serve(a)
    plan = place.plan()
    await place.client.request("DELETE", place.path(NAME))
    result = await place.hand.execute(plan)
    assert (result.failures, result.stale, result.deleted) == ({}, False, 0)
    assert place.seen.secrets.get(place.namespace, NAME) is None


async def test_deletion_that_a_finalizer_holds(place):
    """A Secret that somebody's finalizer holds is seen as ending, and is not deleted again and again."""
    a = await place.resource("a", accounts=())
    await place.serve(a)
    await place.patch(NAME, metadata={"finalizers": ["example.com/hold"]})
    await place.serve()
    assert place.view().terminating
    assert place.plan(a).outcomes[a.uid].reason == "Terminating"
    await place.patch(NAME, metadata={"finalizers": None})
    await place.serve(a)
    assert await place.logins() == {QUAY: "a-quay"}


DRIFTED = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "type": names.SECRET_TYPE}


async def by_patch(place):
    await place.kubectl(
        "patch", "secret", NAME, "--type=merge", "-p", json.dumps({"data": {names.SECRET_KEY: THEIRS}})
    )


async def by_apply(place):
    document = json.dumps(DRIFTED | {"data": {names.SECRET_KEY: THEIRS}})
    await place.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document)


async def by_put(place):
    body = await place.read()
    body["data"][names.SECRET_KEY] = THEIRS
    await place.client.request("PUT", place.path(NAME), params={"fieldManager": "kubectl-edit"}, body=body)


@pytest.mark.parametrize("drift", [by_patch, by_apply, by_put])
async def test_drift(place, drift):
    """Data that somebody changed is seen without being read, written back once, and rests then."""
    a = await place.resource("a")
    await place.serve(a)
    revision = place.view().revision
    await drift(place)
    await place.look()
    assert not place.view().data_owned
    assert place.view().revision == revision
    result = await place.serve(a)
    assert result.writes == 1
    assert await place.logins() == {QUAY: "a-quay"}
    assert (place.view().data_owned, place.view().revision) == (True, revision)
    await place.look()
    assert place.plan(a).idle


@pytest.mark.parametrize(
    "patch",
    [
        {"metadata": {"annotations": {names.REVISION: "x"}}},
        {"metadata": {"annotations": {names.SERVERS: None}}},
        {"metadata": {"annotations": {names.CONTRIBUTORS: "{}"}}},
        {"metadata": {"ownerReferences": None}},
    ],
    ids=["revision", "servers", "contributors", "owners"],
)
async def test_drift_of_metadata(place, patch):
    """Annotations and owner references that somebody changed are written back once."""
    a = await place.resource("a")
    await place.serve(a)
    before = (await place.read())["metadata"]
    await place.patch(NAME, **patch)
    result = await place.serve(a)
    assert result.writes == 1
    after = (await place.read())["metadata"]
    for key in ("annotations", "ownerReferences", "labels", "uid"):
        assert after[key] == before[key]


async def test_what_others_add_stays(place):
    """Labels, annotations, owner references and data of others are left alone, and are no reason to write."""
    a = await place.resource("a")
    await place.serve(a)
    theirs = (await place.create("their-owner", "configmaps"))["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "their-owner", "uid": theirs["uid"]}
    owners = (await place.read())["metadata"]["ownerReferences"]
    await place.patch(
        NAME,
        metadata={"labels": {"l": "x"}, "annotations": {"a": "x"}, "ownerReferences": [*owners, reference]},
        data={"more": "eA=="},
    )
    await place.look()
    assert place.plan(a).idle
    await place.serve(dataclasses.replace(a, logins=contribution("a", {QUAY: "renewed"}).logins))
    body = await place.read()
    assert body["data"]["more"] == "eA=="
    assert (body["metadata"]["labels"]["l"], body["metadata"]["annotations"]["a"]) == ("x", "x")
    assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == [a.uid, theirs["uid"]]


async def test_owners_come_and_go(place):
    """Owner references follow the resources, down to none where a login is to be retained."""
    a, b = await place.resource("a"), await place.resource("b", [GHCR])

    async def owners():
        return sorted(owner["uid"] for owner in (await place.read())["metadata"].get("ownerReferences", []))

    for contributions, expected in (
        ([a], [a.uid]),
        ([a, b], sorted([a.uid, b.uid])),
        ([dataclasses.replace(a, retain=True), b], []),
        # What `a` has left is to be retained, whoever else contributes.
        ([b], []),
    ):
        await place.serve(*contributions)
        assert await owners() == expected


async def test_adoption(place):
    """A Secret that is handed over is written in place, and keeps what is not ours to decide."""
    before = await place.create(
        NAME,
        type=names.SECRET_TYPE,
        data={names.SECRET_KEY: THEIRS},
        metadata={"annotations": {names.ADOPT: "true"}, "labels": {"app": "theirs"}},
    )
    a = await place.resource("a")
    result = await place.serve(a)
    assert (result.writes, result.failures) == (1, {})
    body = await place.read()
    assert body["metadata"]["uid"] == before["metadata"]["uid"]
    assert body["metadata"]["labels"] == {"app": "theirs", names.MANAGED_BY_LABEL: names.MANAGED_BY}
    assert await place.logins() == {QUAY: "a-quay"}
    assert await place.listed() == [NAME]


async def test_adoption_of_another_type(place):
    """A Secret of another type cannot be taken over: it stays as it is, nobody lists it, and the reason is told."""
    before = await place.create(NAME, data={"key": "eA=="}, metadata={"annotations": {names.ADOPT: "true"}})
    a = await place.resource("a")
    await place.look()
    result = await place.hand.execute(place.plan(a))
    assert result.failures[NAME][0] == "Invalid"
    assert "another type" in result.failures[NAME][1]
    assert not result.stale
    assert await place.read() == before
    assert await place.listed() == []


async def test_retained_logins_survive(place):
    """What a deleted resource left stays through every write for others, and alone when those go too."""
    await place.serve(await place.resource("kept", {QUAY: "kept", GHCR: "taken-over"}, retain=True))
    b = await place.resource("b", {GHCR: "b"})
    await place.serve(b)
    assert await place.logins() == {QUAY: "kept", GHCR: "b"}
    await place.serve(dataclasses.replace(b, logins=contribution("b", {GHCR: "renewed"}).logins))
    assert await place.logins() == {QUAY: "kept", GHCR: "renewed"}
    await place.serve()
    assert await place.logins() == {QUAY: "kept"}
    assert await place.listed() == [NAME]
    body = await place.read()
    assert "ownerReferences" not in body["metadata"]


async def test_suspended_login_survives(place):
    """What a suspended resource has brought is carried over when others write the Secret."""
    a, b = await place.resource("a"), await place.resource("b", {GHCR: "b"})
    await place.serve(a)
    frozen = dataclasses.replace(a, frozen=True, logins={})
    await place.serve(frozen, b)
    assert await place.logins() == {QUAY: "a-quay", GHCR: "b"}
    assert await place.listed() == [NAME]


async def test_carrying_over_meets_a_change(place):
    """A Secret that changed while its entries were being carried over is planned for anew."""
    await place.serve(await place.resource("kept", {QUAY: "kept"}, retain=True))
    b = await place.resource("b", {GHCR: "b"})
    plan = place.plan(b)
    assert plan.writes[0].carried == {QUAY}
    changed = await place.patch(NAME, metadata={"annotations": {"theirs": "x"}})
    assert (await place.hand.execute(plan)).stale
    assert await place.read() == changed
    await place.hand.execute(place.plan(b))
    assert await place.logins() == {QUAY: "kept", GHCR: "b"}


@pytest.mark.parametrize("content", [b'{"auths":{"quay.io":{"auth":"%%%"}}}', b'{"auths":{}}'])
async def test_nothing_left_to_carry(place, content):
    """Entries that no kubelet could read are not carried over, and not told to be there."""
    await place.serve(await place.resource("kept", {QUAY: "kept"}, retain=True))
    encoded = base64.b64encode(content).decode()
    await place.patch(NAME, data={names.SECRET_KEY: encoded})
    if (await place.read())["data"][names.SECRET_KEY] != encoded:
        pytest.skip("this API server refuses such a Secret")
    b = await place.resource("b", {GHCR: "b"})
    await place.look()
    for _ in range(2):
        await place.hand.execute(place.plan(b))
    assert await place.logins() == {GHCR: "b"}
    body = await place.read()
    assert set(json.loads(body["metadata"]["annotations"][names.SERVERS])) == {GHCR}
    assert place.plan(b).idle


async def test_new_name(place):
    """A Secret of a new name stands and is listed before the old one goes."""
    a = await place.resource("a")
    await place.serve(a)
    moved = dataclasses.replace(a, secret_name="other")
    await place.look()
    first = place.plan(moved)
    assert actions(first) == ["create other", "attach app other"]
    await place.hand.execute(first)
    assert await place.listed() == [NAME, "other"]
    await place.serve(moved)
    assert await place.listed() == ["other"]
    assert await place.logins("other") == {QUAY: "a-quay"}


async def test_namespace_that_ends(place):
    """A namespace that is found to be on its way out is passed over: planned anew there is nothing to do."""
    await place.create("hold", "configmaps", metadata={"finalizers": ["example.com/hold"]})
    a = await place.resource("a")
    plan = place.plan(a)
    await place.client.request("DELETE", f"/api/v1/namespaces/{place.namespace}")
    result = await place.hand.execute(plan)
    assert result.stale
    assert result.failures[NAME][0] == "Terminating"
    assert result.attached == ()
    assert place.plan(a) == model.Plan()
    await place.patch("hold", "configmaps", metadata={"finalizers": None})


async def test_no_permission(place):
    """Where RBAC refuses, the failure says what to grant, nothing is attached, and trying again at once is no use."""
    kubeconfig = await place.cluster.kubeconfig_for_service_account(place.namespace, "app")
    stranger = api.Client(api.login(str(kubeconfig)))
    a = await place.resource("a")
    try:
        result = await writer.Writer(stranger, place.seen).execute(place.plan(a))
    finally:
        await stranger.close()
    assert set(result.failures) == {NAME}
    assert result.failures[NAME][0] == "Forbidden"
    assert "resourceNames" in result.failures[NAME][1]
    assert not result.stale
    assert await place.listed() == []


async def test_namespace_that_is_gone(place):
    """A namespace that is gone is no reason to fail in another way than by planning anew."""
    a = await place.resource("a")
    plan = place.plan(a)
    (write,) = plan.writes
    nowhere = dataclasses.replace(write, namespace=f"absent-{uuid.uuid4().hex[:8]}")
    result = await place.hand.execute(dataclasses.replace(plan, writes=(nowhere,), edits=()))
    assert result.stale
    assert result.failures[NAME][0] == "Stale"
