"""One Secret of many declarations: who serves which server, what stays, and the same bytes for the same input."""

from __future__ import annotations

import datetime
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred import dockerconfig
from regcred.api import names
from regcred.cluster import views
from regcred.distribution import composition
from tests.distribution.distribution_support import (
    GHCR,
    HOUR,
    HUB,
    NOW,
    QUAY,
    contribution,
    logins_of,
    published,
)

ENDED, LIVING = NOW - HOUR, NOW + HOUR


def compose(*contributions, **rest):
    return composition.compose(contributions, NOW, **rest)


def held(by, *servers, expires=""):
    return composition.Held(by, tuple(views.Standing(server, by.uid, expires) for server in servers))


def orphan(uid, *servers):
    row = views.Contributor(uid, f"ClusterRegistryCredential/{uid}", True)
    return composition.Orphan(row, tuple(views.Standing(server, uid) for server in servers))


def rows(composed):
    return json.loads(composed.annotations[names.SERVERS])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (contribution("a", cluster=False), contribution("b", cluster=True, age=9)),
        (contribution("b", age=2), contribution("a", age=1)),
        (contribution("a", age=1), contribution("b", age=1)),
        (contribution("a", cluster=False, age=1), contribution("b", cluster=False, age=1)),
    ],
    ids=["namespaced", "older", "lower name", "lower name of tenants"],
)
def test_precedence(first, second):
    """A namespaced resource beats a cluster one, then the older, then the lower name; the loser is told by whom."""
    for order in ([first, second], [second, first]):
        composed = compose(*order)
        assert logins_of(composed.data) == {QUAY: f"{first.name}-quay"}
        assert composed.shadowed == {second.uid: ((QUAY, first.key),)}


def test_union():
    """The Secret holds every server of every resource."""
    composed = compose(contribution("a", [QUAY, HUB]), contribution("b", [GHCR]))
    assert logins_of(composed.data) == {QUAY: "a-quay", HUB: f"a-{HUB.partition('.')[0]}", GHCR: "b-ghcr"}
    assert composed.servers == {QUAY, HUB, GHCR}
    assert composed.shadowed == {}


def test_only_what_a_kubelet_reads():
    """An entry is user name, password and auth, under the canonical server, and nothing else."""
    document = json.loads(compose(contribution("a", {HUB: "pw"})).data)
    assert document == {"auths": {HUB: {"username": "user", "password": "pw", "auth": "dXNlcjpwdw=="}}}


def test_loser_steps_in_where_the_winner_has_no_login():
    """A resource of higher precedence that has no login yet takes nothing from the one that has."""
    waiting = contribution("a", {}, cluster=False)
    composed = compose(waiting, contribution("b"))
    assert logins_of(composed.data) == {QUAY: "b-quay"}
    assert composed.shadowed == {}


@pytest.mark.parametrize("logins", [{}, {QUAY: published(expires=ENDED)}], ids=["none", "ended"])
def test_nothing_to_hand_out(logins):
    """Where there is no living login there is no Secret, rather than an empty one."""
    assert compose() is None
    assert compose(contribution("a", logins)) is None


def test_ended_login_stays_where_it_stands():
    """A login that has ended is not handed out anew and not taken away, since it may be our clock that is wrong."""
    ended = contribution("a", {QUAY: published("old", expires=ENDED), GHCR: published("new", expires=LIVING)})
    assert logins_of(compose(ended).data) == {GHCR: "new"}
    there = [
        views.Standing(QUAY, ended.uid, "2026-03-01T11:00:00Z"),
        views.Standing(GHCR, ended.uid, "2026-03-01T13:00:00Z"),
    ]
    assert logins_of(compose(ended, standing=there).data) == {QUAY: "old", GHCR: "new"}


@pytest.mark.parametrize("standing", ["a", "b"])
def test_living_login_beats_an_ended_one(standing):
    """Whatever stands and whoever precedes, a login that lives is never replaced by one that has ended."""
    ended = contribution("a", {QUAY: published("ended", expires=ENDED)}, cluster=False)
    living = contribution("b", {QUAY: published("living", expires=LIVING)})
    there = views.Standing(QUAY, f"uid-{standing}", "2026-03-01T11:00:00Z" if standing == "a" else "")
    composed = compose(ended, living, standing=[there])
    assert logins_of(composed.data) == {QUAY: "living"}


@pytest.mark.parametrize(
    ("stands_until", "kept"),
    [("2026-03-01T13:00:00Z", True), ("", True), ("2026-03-01T11:30:00Z", False)],
    ids=["lives", "never ends", "has ended"],
)
def test_login_that_arrives_ended(stands_until, kept):
    """A new login that has ended on its way does not take the place of the last one while that lives."""
    late = contribution("a", {QUAY: published("late", expires=ENDED)})
    there = [views.Standing(QUAY, late.uid, stands_until, "v-before")]
    composed = compose(late, standing=there)
    if kept:
        assert (composed.servers, composed.carried) == (frozenset(), {QUAY})
        assert composed.standing == tuple(there)
        assert composed.shadowed == {}
        assert composed.owner_uids == (late.uid,)
    else:
        assert logins_of(composed.data) == {QUAY: "late"}


def test_login_ends_at_its_end():
    """A login has ended from the moment on that the provider gave."""
    assert compose(contribution("a", {QUAY: published(expires=NOW)})) is None
    assert compose(contribution("a", {QUAY: published(expires=NOW + datetime.timedelta(seconds=1))})) is not None


def test_annotations_explain_the_secret():
    """The annotations tell for each server its resource and end, and for each resource what becomes of it."""
    composed = compose(
        contribution("a", {QUAY: published(expires=LIVING)}),
        contribution("b", {GHCR: "pw"}, cluster=False, retain=True),
    )
    assert rows(composed) == {
        QUAY: {
            "from": "ClusterRegistryCredential/a",
            "uid": "uid-a",
            "expires": "2026-03-01T13:00:00Z",
            "version": "v-pw",
        },
        GHCR: {"from": "RegistryCredential/team-a/b", "uid": "uid-b", "version": "v-pw"},
    }
    assert json.loads(composed.annotations[names.CONTRIBUTORS]) == {
        "uid-a": {"from": "ClusterRegistryCredential/a", "deletionPolicy": "Delete"},
        "uid-b": {"from": "RegistryCredential/team-a/b", "deletionPolicy": "Retain"},
    }
    assert composed.annotations[names.REVISION] == composed.revision
    assert set(composed.annotations) == {names.CONTRIBUTORS, names.SERVERS, names.REVISION}


def test_annotations_read_back():
    """What the composition says of its annotations is what a view of the Secret reads from them."""
    composed = compose(
        contribution("b", {QUAY: published(expires=LIVING), "[fd00::1]:5000": "x", "*.r.io/team/": "y"}),
        contribution("a", [GHCR], cluster=False),
        orphans=[orphan("uid-z", HUB)],
    )
    body = {
        "metadata": {
            "namespace": "n",
            "name": "regcred",
            "uid": "u",
            "resourceVersion": "1",
            "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
            "annotations": dict(composed.annotations),
        }
    }
    view = views.secret(body)
    assert view.ours
    assert view.contributors == composed.contributors
    assert view.servers == composed.standing
    assert view.revision == composed.revision


def test_owners_are_the_contributors():
    """Every contributing resource owns the Secret, the shadowed one too, so that the cluster can clean up alone."""
    composed = compose(contribution("b", [GHCR, QUAY]), contribution("a", cluster=False))
    assert composed.owner_uids == ("uid-a", "uid-b")
    assert composed.owners[0] == {
        "apiVersion": names.API_VERSION,
        "kind": names.NAMESPACED_KIND,
        "name": "a",
        "uid": "uid-a",
    }


@pytest.mark.parametrize(
    "more",
    [
        {"contributions": [contribution("b", [GHCR], retain=True)]},
        {"orphans": [orphan("uid-z", GHCR)]},
        {"held": [held(contribution("c", retain=True, frozen=True), GHCR)]},
    ],
    ids=["living", "left by a deleted resource", "suspended"],
)
def test_no_owner_where_something_is_retained(more):
    """Where one login is to be retained there is no owner at all: the garbage collector would take the whole Secret."""
    contributions = [contribution("a"), *more.pop("contributions", [])]
    composed = composition.compose(contributions, NOW, **more)
    assert GHCR in {row.server for row in composed.standing}
    assert composed.owners == ()


def test_resource_without_a_login_contributes_nothing():
    """A resource that has brought nothing is not listed, so that it cannot keep or own what others brought."""
    composed = compose(contribution("a"), contribution("b", {}, retain=True))
    assert [row.uid for row in composed.contributors] == ["uid-a"]
    assert composed.owner_uids == ("uid-a",)


def test_orphan_gives_way():
    """What a deleted resource has left stays as it stands, but for servers that a living resource serves."""
    composed = compose(contribution("a"), orphans=[orphan("uid-z", QUAY, GHCR)])
    assert logins_of(composed.data) == {QUAY: "a-quay"}
    assert composed.carried == {GHCR}
    assert rows(composed)[GHCR]["uid"] == "uid-z"
    assert [row.uid for row in composed.contributors] == ["uid-a", "uid-z"]


def test_orphan_of_which_nothing_is_left():
    """A deleted resource whose servers are all served by others is forgotten."""
    composed = compose(contribution("a"), orphans=[orphan("uid-z", QUAY)])
    assert [row.uid for row in composed.contributors] == ["uid-a"]
    assert composed.owner_uids == ("uid-a",)


def test_only_orphans():
    """A Secret of which only the retained part is asked for holds that part alone."""
    composed = compose(orphans=[orphan("uid-z", QUAY)])
    assert composed.carried == {QUAY}
    assert composed.servers == frozenset()
    assert composed.owners == ()


@pytest.mark.parametrize(
    ("suspended", "expires", "served"),
    [
        (contribution("s", {QUAY: "in memory"}, cluster=False, frozen=True), "", None),
        (contribution("s", {QUAY: "in memory"}, frozen=True), "", "a"),
        (contribution("s", {}, cluster=False, frozen=True), "2026-03-01T11:00:00Z", "a"),
        (contribution("s", {}, cluster=False, frozen=True), "2026-03-01T13:00:00Z", None),
        (contribution("s", {}, cluster=False, frozen=True), "nonsense", None),
    ],
    ids=["precedes", "is preceded", "has ended", "lives", "unknown"],
)
def test_held_login_keeps_its_place(suspended, expires, served):
    """What a suspended resource has brought stays as it stands, by the same precedence, and never comes from memory."""
    other = contribution("a", age=1)
    composed = compose(other, held=[held(suspended, QUAY, expires=expires)])
    if served is None:
        assert composed.carried == {QUAY}
        assert composed.servers == frozenset()
        assert composed.shadowed == {other.uid: ((QUAY, suspended.key),)}
        assert rows(composed)[QUAY].get("expires", "") == expires
    else:
        assert logins_of(composed.data) == {QUAY: "a-quay"}
        # Once it has given way nothing stands that it could step in with.
        assert composed.shadowed == {}
        assert suspended.uid not in {row.uid for row in composed.contributors}
    assert b"memory" not in composed.data


def test_too_large():
    """Logins that do not fit into a Secret are refused, with what to do about it."""
    big = {f"r{number}.example.com": f"{number}" + "x" * 60_000 for number in range(9)}
    with pytest.raises(dockerconfig.TooLarge, match="several secretName"):
        compose(contribution("a", big))


def test_annotations_have_a_limit():
    """However many servers there are, the annotations stay within what the API server takes, and stay readable."""
    many = {f"registry-{number:04}.{'x' * 50}.example.com": "pw" for number in range(1500)}
    composed = compose(contribution("a" * 200, many))
    assert len(logins_of(composed.data)) == 1500
    assert sum(len(key) + len(value) for key, value in composed.annotations.items()) < 256 * 1024
    shown = rows(composed)
    assert list(shown) == sorted(many)[: len(shown)]


def test_what_must_be_remembered_comes_first():
    """Where not all servers fit into the annotation, those that nothing else remembers do."""
    many = {f"registry-{number:04}.{'x' * 50}.example.com": "pw" for number in range(1500)}
    composed = compose(contribution("a" * 200, many), orphans=[orphan("uid-z", "zzz.example.com")])
    assert "zzz.example.com" in rows(composed)


def test_secrets_stay_out_of_sight():
    """Neither annotations nor the representation of a composition show a login."""
    composed = compose(contribution("a", {QUAY: published("hunter2", version="v1")}))
    assert "hunter2" not in repr(composed)
    assert "hunter2" not in json.dumps(dict(composed.annotations))


SERVERS = [QUAY, GHCR, HUB, "r.example.com:5000"]
ENDS = st.sampled_from([None, ENDED, LIVING])
LOGINS = st.dictionaries(
    st.sampled_from(SERVERS),
    st.builds(lambda password, end: published(password, expires=end), st.sampled_from("pqr"), ENDS),
    max_size=4,
)


@st.composite
def contributions(draw):
    found = []
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from("abc")) + str(number)
        cluster, age, retain = draw(st.booleans()), draw(st.integers(0, 2)), draw(st.booleans())
        found.append(contribution(name, draw(LOGINS), cluster=cluster, age=age, retain=retain))
    return found


STANDING = st.lists(
    st.builds(
        views.Standing,
        st.sampled_from(SERVERS),
        st.sampled_from(["uid-a0", "uid-b1", "uid-c2"]),
        st.sampled_from(["", "2026-03-01T11:00:00Z", "2026-03-01T13:00:00Z"]),
    ),
    unique_by=lambda row: row.server,
)


@given(contributions=contributions(), standing=STANDING, data=st.data())
def test_order_does_not_matter(contributions, standing, data):
    """The same resources make the same bytes, in whatever order they come and however often they are made anew."""
    shuffled = data.draw(st.permutations(contributions))
    again = [
        contribution(
            each.name, dict(reversed(list(each.logins.items()))), cluster=each.cluster, retain=each.retain
        )
        for each in shuffled
    ]
    for new, old in zip(again, shuffled, strict=True):
        object.__setattr__(new, "created", old.created)
    one = compose(*contributions, standing=standing)
    other = compose(*again, standing=standing[::-1])
    assert one == other


@given(contributions=contributions(), standing=STANDING)
def test_every_server_is_served_by_the_best(contributions, standing):
    """A server is served by the first in precedence whose login lives, new or standing, else by whose ended one stands."""
    there = {(row.server, row.uid): row for row in standing}
    composed = compose(*contributions, standing=standing)
    found = {row.server: row.uid for row in composed.standing} if composed is not None else {}
    for server in SERVERS:
        claims = sorted((each for each in contributions if server in each.logins), key=lambda each: each.rank)
        lasting = {"", "2026-03-01T13:00:00Z"}
        living = [
            each
            for each in claims
            if not each.logins[server].expired(NOW)
            or ((server, each.uid) in there and there[server, each.uid].expires in lasting)
        ]
        ended = [each for each in claims if (server, each.uid) in there]
        best = next(itertools.chain(living, ended), None)
        assert found.get(server) == (best.uid if best else None)


@given(contributions=contributions())
def test_revision_tells_content(contributions):
    """Two compositions have one revision exactly when data and annotations are the same."""
    made = [compose(*contributions[:number]) for number in range(len(contributions) + 1)]
    for one, other in itertools.combinations([each for each in made if each is not None], 2):
        annotations = [dict(each.annotations) for each in (one, other)]
        for each in annotations:
            del each[names.REVISION]
        assert (one.revision == other.revision) == ((one.data, annotations[0]) == (other.data, annotations[1]))


def test_an_ended_login_that_gives_way_is_not_remembered():
    """Where the winner's login has ended and another resource's lives, one write comes to rest: the next is the same."""
    ends = contribution("a", {QUAY: published("ends", expires=NOW - HOUR)}, cluster=False)
    lives = contribution("b", {QUAY: "lives"})
    stood = composition.compose((ends, lives), NOW - 2 * HOUR)
    assert {row.uid for row in stood.standing} == {ends.uid}
    first = compose(ends, lives, standing=stood.standing)
    assert logins_of(first.data) == {QUAY: "lives"}
    second = compose(ends, lives, standing=first.standing)
    assert (second.revision, second.contributors, second.shadowed) == (first.revision, first.contributors, {})
