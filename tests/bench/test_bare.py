"""The bare client sends bodies like regcred's."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from dev.bench import bare, plot
from dev.bench.figures import Point
from regcred import dockerconfig

AUTHS = {"auths": {"r.example.com": {"username": "AWS", "password": "abc", "auth": "QVdTOmFiYw=="}}}
SAMPLE = {
    "type": "kubernetes.io/dockerconfigjson",
    "metadata": {"name": "regcred", "labels": {"a": "b"}, "annotations": {"c": "d"}, "ownerReferences": [{}, {}]},
    "data": {bare.KEY: base64.b64encode(json.dumps(AUTHS, separators=(",", ":")).encode()).decode()},
}
OWNERS = [{"uid": str(number)} for number in range(3)]


def test_body_is_that_of_the_sample() -> None:
    """A body has the sample's data, type, labels and annotations, and as many owners."""
    body = json.loads(b'{"metadata":{' + bare.secret_tail("bench", SAMPLE, OWNERS))
    assert body["data"] == SAMPLE["data"]
    assert body["type"] == SAMPLE["type"]
    assert body["metadata"] == {
        "name": "bench",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "ownerReferences": OWNERS[:2],
    }


def test_renewed_body_is_other_data_of_the_same_size() -> None:
    """A renewal changes the data and neither its size nor that the server takes it."""
    before, after = SAMPLE["data"][bare.KEY], bare.renewed(SAMPLE)["data"][bare.KEY]
    assert before != after
    assert len(before) == len(after)
    assert dockerconfig.parse(base64.b64decode(after)).logins or json.loads(base64.b64decode(after))


async def test_work_is_spread() -> None:
    """Every item is worked on once, and never more of them at once than asked for."""
    working, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        done.append(item)

    await bare.spread(range(50), work, 4)
    assert sorted(done) == list(range(50))
    assert most == 4


@pytest.mark.parametrize(
    ("highest", "last"), [(0.0, 1.0), (1.0, 1.0), (0.93, 1.0), (1000, 1000), (5000, 5000), (97, 100)]
)
def test_ticks_are_round_and_cover(highest: float, last: float) -> None:
    """An axis begins at 0 and ends at a round number that covers the highest value."""
    found = plot.ticks(highest)
    assert found[0] == 0
    assert found[-1] == pytest.approx(last)
    assert len(found) <= 7


def test_plot_is_deterministic_and_whole() -> None:
    """Equal points give equal bytes, in whatever order, with a mark for each point of each line."""
    points = [Point(100, 0.1, 0.08, 0.1, 0.09, 90), Point(1000, 1.1, 1.0, 0.9, 0.9, 100)]
    picture = plot.draw(points)
    assert picture == plot.draw(points[::-1])
    assert picture.count("<circle") == 2 * 5
    assert picture.count("<polyline") == 5


def test_plot_of_nothing() -> None:
    """A run without points has an empty picture and no error."""
    assert "<circle" not in plot.draw([])
