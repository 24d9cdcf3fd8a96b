"""The book of experiments: who takes part registers here, and what cannot be done on one machine is named here.

An experiment is a coroutine that gets the arena and returns what it found.  A module that holds some is listed in
`MODULES`; one that is not there yet is passed over, so that parts can be added without touching the others.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dev.chaos.arena import Arena

#: Modules of this package that hold experiments, in the order in which they are run.
MODULES = (
    "api_server",
    "views",
    "writers",
    "objects",
    "registries",
    "clocks",
    "availability",
    "crash_points",
    "attacks",
    "by_tests",
    "endings",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What an experiment has found.

    Attributes:
        holds: whether it is as expected.
        seen: one sentence.
        figure: what was measured.
    """

    holds: bool
    seen: str
    figure: str = ""


Run = Callable[["Arena"], Awaitable[Finding]]


@dataclasses.dataclass(frozen=True, slots=True)
class Experiment:
    """One entry of the book.

    Attributes:
        number: of the list that `docs/reliability.md` explains, such as `2`.
        name: for the command line.
        title: what is done to the operator.
        expected: one sentence.
        run: does it.
    """

    number: int
    name: str
    title: str
    expected: str
    run: Run


@dataclasses.dataclass(frozen=True, slots=True)
class Elsewhere:
    """An experiment that `make chaos` does not do.

    Attributes:
        why: why not, and what stands in its place.
        always: say so even where the book holds another part of the same experiment.
    """

    number: int
    title: str
    why: str
    always: bool = False


ELSEWHERE = (
    Elsewhere(
        9, "A leader cut off on another machine", "Needs a second machine; here both share one kernel.", True
    ),
    Elsewhere(18, "5,000 namespaces at once", "`make bench` measures it: see [performance](performance.md)."),
    Elsewhere(20, "Hours of churn, kills and short tokens", "`make soak`, an hour or more."),
    Elsewhere(
        25,
        "Each right is needed",
        "Tests of their own, of the base and of every component: `tests/e2e/test_rights_used.py` and "
        "`tests/e2e/test_component_rights.py`.",
    ),
    Elsewhere(
        27,
        "Upgrade from two versions before, and back",
        "There is one version so far; `tests/release` goes from an earlier state to this one and back.",
    ),
    Elsewhere(28, "From namespace to running pod", "Needs a kubelet; `pod-race` ends at the pod's object.", True),
    Elsewhere(30, "Canaries", "Looked for at the end of every run and by `provider-outage`.", True),
)

_book: dict[str, Experiment] = {}


def experiment(number: int, name: str, *, title: str, expected: str) -> Callable[[Run], Run]:
    """Enter a coroutine into the book."""

    def enter(run: Run) -> Run:
        if name in _book:
            raise ValueError(f"there are two experiments called {name}")
        _book[name] = Experiment(number, name, title, expected, run)
        return run

    return enter


def experiments() -> list[Experiment]:
    """Return every experiment, in the order in which they are run."""
    for name in MODULES:
        if importlib.util.find_spec(f"dev.chaos.{name}") is not None:
            importlib.import_module(f"dev.chaos.{name}")
    return list(_book.values())
