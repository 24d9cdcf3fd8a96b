"""What the commands share: how they reach the cluster, what they print, and how they end.

Exit codes: 0 all is well, 1 something is wrong and was found, 2 the command line is wrong, 3 it could not be looked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import click
import yaml

from regcred.cluster import client as api
from regcred.cluster import errors

FOUND = 1
BLIND = 3

Function = TypeVar("Function", bound=Callable[..., Any])


class Failure(click.ClickException):
    """It could not be looked, or done."""

    exit_code = BLIND


def connection(function: Function) -> Function:
    """Add the options that say which cluster."""
    for option in (
        click.option("--context", help="Context of the kubeconfig."),
        click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Kubeconfig."),
    ):
        function = option(function)
    return function


def namespaced(function: Function) -> Function:
    """Add the option for a namespace."""
    return click.option("-n", "--namespace", default="", help="Namespace; that of the context if left out.")(
        function
    )


def operator_namespace(function: Function) -> Function:
    """Add the option that says where the operator is."""
    return click.option(
        "--operator-namespace", default="regcred-system", show_default=True, help="The operator's namespace."
    )(function)


def protected(function: Function) -> Function:
    """Add the option that says which namespaces the operator was told to leave alone."""
    return click.option(
        "--protected-namespaces",
        multiple=True,
        metavar="GLOB",
        help="As the operator was told, where its Deployment may not be read, which says so itself.",
    )(function)


def output(function: Function) -> Function:
    """Add the option for programs that read."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="For programs, in place of a table."
    )(function)


def asynchronous(function: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., None]:
    """Run a command in an event loop, and end with the exit code that it returns."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            code = asyncio.run(function(*args, **options))
        except errors.ApiError as error:
            raise Failure(_told(error)) from None
        except KeyboardInterrupt:
            code = 130
        sys.exit(code)

    return run


def _told(error: errors.ApiError) -> str:
    text = str(error)
    if isinstance(error, errors.NotFound):
        return f"{text}. Is regcred installed in this cluster?"
    if isinstance(error, errors.Forbidden):
        return f"{text}. You need more rights than this login has; docs/reference/cli.md lists them."
    return f"{text}."


@contextlib.asynccontextmanager
async def connected(kubeconfig: str | None, context: str | None) -> AsyncIterator[api.Client]:
    """Give a client of the cluster that is meant.

    Raises:
        Failure: there is no usable kubeconfig.
    """
    import kubernetes.config  # noqa: PLC0415 - takes a moment, which `check` and `--help` need not wait for

    try:
        access = await asyncio.to_thread(api.login, kubeconfig, context)
    except (kubernetes.config.ConfigException, OSError, ValueError):
        raise Failure(
            "There is no usable kubeconfig; set KUBECONFIG, or give --kubeconfig and --context."
        ) from None
    client = api.Client(access)
    try:
        yield client
    finally:
        await client.close()


def default_namespace(kubeconfig: str | None, context: str | None) -> str:
    """Return the namespace that the context names, else `default`."""
    import kubernetes.config  # noqa: PLC0415 - see above

    try:
        contexts, active = kubernetes.config.list_kube_config_contexts(config_file=kubeconfig)
    except (kubernetes.config.ConfigException, OSError, ValueError):
        return os.environ.get("POD_NAMESPACE") or "default"
    chosen = next((found for found in contexts if found["name"] == context), active) if context else active
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")


async def listed(client: api.Client, path: str, **params: str) -> list[dict[str, Any]]:
    """Return every object of a collection."""
    found: list[dict[str, Any]] = []
    async with contextlib.aclosing(client.pages(path, params=params)) as pages:
        async for items, _ in pages:
            found += items
    return found


# What is printed.


def emit(document: Any, form: str) -> None:
    """Print a document for programs."""
    if form == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def plain(text: object) -> str:
    """Return a text of the cluster so that it cannot steer a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Sequence[str] = ()) -> Any:
    """Return a table for a terminal; a cell of several lines is as long as it is.

    Args:
        columns: headings.
        rows: cells, by row.
        styles: one for each row; none for plain.
    """
    import rich.box  # noqa: PLC0415 - only where a person reads
    import rich.table  # noqa: PLC0415
    import rich.text  # noqa: PLC0415

    headed = any(columns)
    box = rich.box.SIMPLE_HEAD if headed else None
    made = rich.table.Table(box=box, show_header=headed, pad_edge=not headed, header_style="bold")
    for name in columns:
        made.add_column(name, overflow="fold")
    for index, row in enumerate(rows):
        style = styles[index] if index < len(styles) else ""
        made.add_row(*(rich.text.Text(plain(cell), style=style) for cell in row))
    return made


@functools.cache
def console() -> Any:
    """Return what prints for people: as wide as the terminal, and as wide as it needs where there is none."""
    import rich.console  # noqa: PLC0415 - only where a person reads

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return rich.console.Console(width=wide, highlight=False, markup=False, emoji=False)


def say(text: str = "", style: str = "", *, whole: bool = False) -> None:
    """Print a text for people; `whole` keeps a line in one piece, to be copied."""
    console().print(plain(text), style=style or None, soft_wrap=whole)
