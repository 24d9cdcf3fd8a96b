"""A list is decoded object by object, however it is cut, and what is no whole list is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcred.cluster import items

TEXT = st.text(max_size=12) | st.sampled_from(['"items":[', "]}", "\\", '"', "é", "\U0001f512"])
OBJECT = st.dictionaries(
    TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, TEXT, max_size=2), max_size=4
)


def decode(document: bytes, *cuts: int) -> tuple[list[Any], str]:
    """The objects of a document that comes in pieces, and the version."""
    decoder = items.Decoder()
    found: list[Any] = []
    places = [0, *sorted(cut % (len(document) + 1) for cut in cuts), len(document)]
    for begin, end in zip(places, places[1:], strict=False):
        found += decoder.feed(document[begin:end])
    decoder.close()
    return found, decoder.version


@given(st.lists(OBJECT, max_size=6), st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([None, 1]))
def test_pieces(objects: list[Any], cuts: list[int], indent: int | None) -> None:
    """Wherever the pieces are cut, within a letter too, every object comes once and in order."""
    document = {"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": objects}
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    assert decode(text.encode(), *cuts) == (objects, "7")


@given(st.lists(OBJECT, max_size=3), st.integers(0, 10_000))
def test_cut(objects: list[Any], end: int) -> None:
    """A list that ends too early is no list, whatever has come of it."""
    document = json.dumps(
        {"kind": "SecretList", "metadata": {"resourceVersion": "7"}, "items": objects}, separators=(",", ":")
    ).encode()
    with pytest.raises(ValueError, match=r".*"):
        decode(document[: end % len(document)])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"kind": "Status", "metadata": {"resourceVersion": "7"}, "items": []}',
        b'{"kind": "List", "metadata": {}, "items": []}',
        b'{"kind": "List", "metadata": {"resourceVersion": 7}, "items": []}',
        b'{"kind": "List", "items": []}',
        b'{"kind": "List", "metadata": {"resourceVersion": "7"}, "items": [{}, x]}',
        b'{"kind": "List", "metadata": {"resourceVersion": "7"}, "items": [{}]} {}',
        b'{"kind": "List", "metadata": {"resourceVersion": "7"}, "items": [\xff]}',
    ],
)
def test_no_list(document: bytes) -> None:
    """What is no list of the API server is refused."""
    with pytest.raises(ValueError, match=r".*"):
        decode(document)


def test_no_items() -> None:
    """A list without items may hold null in their place."""
    assert decode(b'{"kind": "List", "metadata": {"resourceVersion": "7"}, "items": null}') == ([], "7")
