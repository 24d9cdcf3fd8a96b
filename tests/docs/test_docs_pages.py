"""The pages of the documentation hang together: every link leads somewhere, and every page is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dev.docs import __main__ as generator
from dev.docs import reasons
from regcred.api import conditions, names
from regcred.credentials import provider
from tests.docs.docs_support import DOCS, PAGES, ROOT, anchors, headings, prose

EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@EACH
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link within the project names a file that is there, and a heading that is in it."""
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading; there are {sorted(anchors(target))}"


@EACH
def test_every_page_begins_with_its_title(page: Path) -> None:
    """A page has one title, in its first line."""
    assert page.read_text().startswith("# ")
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1


def test_every_page_is_reached_from_the_index() -> None:
    """Whoever begins at the index finds every page by links alone."""
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
        waiting += [target for target in targets if target.suffix == ".md" and target.is_file()]
    assert set(DOCS.rglob("*.md")) - reached == set()


@pytest.mark.parametrize("page", generator.pages(), ids=lambda page: page.stem)
def test_generated_parts_are_current(page: Path) -> None:
    """What a page restates of the code is what the code says now; else run `make docs`."""
    assert generator.render(page.read_text()) == page.read_text()


def test_every_generated_part_is_in_a_page() -> None:
    """No part is made for nothing."""
    used = re.findall(r"<!-- generated: ([\w-]+) -->", "".join(page.read_text() for page in generator.pages()))
    assert sorted(used) == sorted(generator.BLOCKS)


def test_a_stale_part_is_noticed() -> None:
    """A part that somebody edited by hand is not what the code makes."""
    page = "# T\n\n<!-- generated: metrics -->\nmy own words\n<!-- end of metrics -->\n"
    assert "regcred_leader" in generator.render(page)


def test_every_name_on_objects_is_explained() -> None:
    """Every label and annotation that regcred reads or writes stands in its reference."""
    page = (DOCS / "reference" / "annotations.md").read_text()
    known = {names.MANAGED_BY_LABEL, names.CONTRIBUTORS, names.SERVERS, names.REVISION}
    for name in known | {names.ADOPT, names.IGNORE, names.REFRESH}:
        assert f"`{name}`" in page


def test_every_reason_of_a_condition_says_what_to_do() -> None:
    """For each reason of a condition but success, the reference says what to do."""
    page = (DOCS / "reference" / "conditions.md").read_text()
    _, _, advice = page.partition("### What to do")
    advice, _, _ = advice.partition("\n## ")
    advised = set(re.findall(r"^\| `(\w+)` \|", advice, re.MULTILINE))
    assert {reason.value for reason in conditions.Reason} - {"Succeeded"} <= advised


@EACH
def test_every_test_that_is_named_exists(page: Path) -> None:
    """A page that says which test shows something names one that is there."""
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
            f"{path}::{name}"
        )


def test_every_attack_has_a_test() -> None:
    """Every row of the threat model's attacks names a test."""
    page = (DOCS / "threat-model.md").read_text()
    _, _, attacks = page.partition("\n## Attacks\n")
    attacks, _, _ = attacks.partition("\n## ")
    rows = [
        row for row in attacks.splitlines() if row.startswith("| ") and not row.startswith(("| ---", "| Attack"))
    ]
    rows = [row for row in rows if not row.startswith(("| He could", "| Way"))]
    assert len(rows) > 25
    assert [row for row in rows if "`tests/" not in row] == []


def test_messages_are_read_off_the_code() -> None:
    """The list of messages holds what a provider's error says, with what is filled in between angle quotes."""
    page = reasons.of_providers()
    error = provider.Denied("UnknownIdentity", "")
    assert (
        f"| `{error.reason}` | AWS does not know the credentials of \u2039subject\u203a in \u2039region\u203a:"
        in page
    )
    assert "Secret \u2039name\u203a has no key \u2039key\u203a;" in page


#: Headings of the page that quote others than regcred: the kubelet, the runtime, registries, kubectl.
_OTHERS = {
    "Unable to retrieve some image pull secrets (regcred)",
    "pull access denied",
    "insufficient_scope",
    "unauthorized",
    "401",
    "toomanyrequests",
    "no basic auth credentials",
    "token has expired",
    "no match for platform in manifest",
    "i/o timeout",
    "connection refused",
    "pull QPS exceeded",
    "InvalidImageName",
    "ErrImageNeverPull",
    "not found",
    "manifest unknown",
    "no such host",
    "x509",
    "kubectl get",
    "READY",
    "ErrImagePull",
    'unknown field "x-kubernetes-validations"',
    'no matches for kind "PodDisruptionBudget" in version "policy/v1"',
}


def test_messages_in_troubleshooting_are_in_the_code() -> None:
    """Every message of regcred that a heading quotes is one that the code can say."""
    said = {text for path in (ROOT / "operator").rglob("*.py") for text in reasons.texts(path.read_text())}
    quoted = [part for title in headings(DOCS / "troubleshooting.md") for part in re.findall(r"`([^`]+)`", title)]
    ours = [part for part in quoted if part not in _OTHERS]
    assert len(ours) > 10
    words = {reason.value for kind in (conditions.Reason, conditions.RegistryReason) for reason in kind}
    words |= {conditions.STALLED}
    missing = [part for part in ours if part not in words and not any(part in text for text in said)]
    assert missing == []
