"""The tables of a run, in Markdown that reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dev.bench.figures import Results, Row, compared

#: Requests of one row that are worth a place in its cell.
_SHOWN = 5


def table(results: Results) -> str:
    """Return the figures of a run, with the machine described."""
    body = [
        (
            row.what,
            amount(row.value, row.unit),
            "" if row.bare is None else amount(row.bare, row.unit),
            judgement(row),
            limit(row),
            {True: "yes", False: "**no**", None: ""}[row.reached],
            told(row),
        )
        for row in results.rows
    ]
    heads = (
        "what",
        "regcred",
        "bare client",
        "judged",
        "to reach",
        "reached",
        "requests of regcred, and exact counts",
    )
    return f"{described(results)}\n\n{grid(heads, body)}"


def described(results: Results) -> str:
    """Return a sentence about the machine and the run."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    return f"Run of {results.at} ({results.mode}): {machine}."


def comparison(before: Results, after: Results) -> str:
    """Return how two runs differ."""
    body = [
        (
            new.what,
            judgement(old),
            judgement(new),
            f"{grown:+.0%}",
            "worse" if grown > 0.1 else "better" if grown < -0.1 else "",
        )
        for old, new, grown in compared(before, after)
    ]
    same = all(before.machine.get(name) == value for name, value in after.machine.items() if name != "load before")
    note = "" if same else "\nThe machines differ: compare the ratios only.\n"
    return f"Against the run of {before.at} ({before.mode}):\n{note}\n" + grid(
        ("what", "before", "now", "change", ""), body
    )


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with its columns aligned."""
    widths = [max(len(line[at]) for line in (heads, *rows)) for at in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, with as many digits as mean something."""
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.01 else f"{value * 1000:.1f} ms"
    if unit == "MiB":
        return f"{value:.0f} MiB"
    return f"{value:.2f} {unit}"


def judgement(row: Row) -> str:
    """Return the number that the limit is about."""
    if row.rule == "ratio" and row.bare is not None:
        return f"{row.judged:.2f} times"
    return amount(row.judged, row.unit) + (" behind" if row.rule == "behind" and row.bare is not None else "")


def limit(row: Row) -> str:
    """Return what was to be reached."""
    if row.limit is None:
        return ""
    return f"{row.limit:g} times" if row.rule == "ratio" else amount(row.limit, row.unit)


def line(row: Row) -> str:
    """Return one figure as a line, for the moment it is known."""
    parts = [f"{row.what}: {amount(row.value, row.unit)}"]
    if row.bare is not None:
        parts.append(f"bare client {amount(row.bare, row.unit)}, {judgement(row)}")
    if row.limit is not None:
        parts.append(f"at most {limit(row)}")
    return "; ".join([*parts, *filter(None, (told(row), str(dict(row.details)) if row.details else ""))])


def told(row: Row) -> str:
    """Return the requests of a row and what had to be counted exactly."""
    return "; ".join(part for part in (_requests(row.requests), _exact(row.exact)) if part)


def _requests(requests: Mapping[str, int]) -> str:
    shown = [f"{count} {name}" for name, count in list(requests.items())[:_SHOWN]]
    rest = sum(list(requests.values())[_SHOWN:])
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _exact(exact: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{name}: {got}" + ("" if got == wanted else f" **instead of {wanted}**")
        for name, (got, wanted) in exact.items()
    )
