"""The command line: `regcred run` is the operator, the other commands are for people.

The same program is `kubectl regcred`, where it is installed as `kubectl-regcred`.  What a command needs is loaded when
it is called: the operator pays for no table, and people do not wait for the operator.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

import regcred
from regcred import settings as operator_settings
from regcred.commands import lazy

if TYPE_CHECKING:
    from regcred.cluster import lease

_log = logging.getLogger("regcred")
_DEFAULTS = operator_settings.Settings()


@click.group(
    cls=lazy.Group,
    context_settings={"auto_envvar_prefix": "REGCRED", "help_option_names": ["-h", "--help"]},
)
@click.version_option(regcred.__version__, prog_name="regcred")
def main() -> None:
    """Keep a working pull Secret in every chosen namespace."""


@main.command(context_settings={"show_default": True})
@click.option(
    "--namespace", default=_DEFAULTS.namespace, help="The operator's own namespace: sources, cache, Lease."
)
@click.option("--service-account", default=_DEFAULTS.service_account, help="The operator's own service account.")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Kubeconfig; left out in a cluster.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--cluster-ambient-credentials/--no-cluster-ambient-credentials",
    default=_DEFAULTS.cluster_ambient_credentials,
    help="Whether cluster resources may use the operator's own cloud identity.",
)
@click.option(
    "--ambient-credentials/--no-ambient-credentials",
    default=_DEFAULTS.ambient_credentials,
    help="Whether namespaced resources may use the operator's own cloud identity.",
)
@click.option(
    "--protected-namespaces",
    multiple=True,
    metavar="GLOB",
    help="Namespaces that no cluster resource serves, besides the operator's own, kube-system, kube-public and "
    "kube-node-lease.",
)
@click.option(
    "--leader-election/--no-leader-election",
    default=_DEFAULTS.leader_election,
    help="Wait for the Lease before working; needed with more than one replica.",
)
@click.option("--lease-duration", type=click.FloatRange(2), default=_DEFAULTS.lease_duration, help="Seconds.")
@click.option("--lease-deadline", type=click.FloatRange(1), default=_DEFAULTS.lease_deadline, help="Seconds.")
@click.option("--identity", default=_DEFAULTS.identity, help="Name of this replica in the Lease and in events.")
@click.option("--listen", default=_DEFAULTS.listen, help="Address of probes and metrics.")
@click.option("--port", type=click.IntRange(0, 65535), default=_DEFAULTS.port, help="Port of probes and metrics.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 512),
    default=_DEFAULTS.concurrency,
    help="Requests to the API server at once.",
)
@click.option(
    "--watch-silence",
    type=click.FloatRange(2),
    default=_DEFAULTS.watch_silence,
    help="Seconds without an event after which a watch counts as dead and its collection is listed anew. API servers "
    "send one in 75 seconds at the least.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default=_DEFAULTS.log_level,
    help="What is logged.",
)
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default=_DEFAULTS.log_format, help="How it is logged."
)
def run(**options: Any) -> None:
    """Run the operator."""
    from regcred import logs  # noqa: PLC0415 - see above

    if options["lease_deadline"] >= options["lease_duration"]:
        raise click.UsageError("--lease-deadline must be less than --lease-duration")
    chosen = operator_settings.Settings(**options)
    logs.setup(chosen.log_level.upper(), chosen.log_format)
    sys.exit(asyncio.run(_run(chosen)))


def kubectl() -> None:
    """Be `kubectl regcred`."""
    main(prog_name="kubectl regcred")


def _exit_at_once(lost: lease.LeaseLost) -> None:
    """End the process: another replica may write from now on, so nothing here may run on, not even a clean-up."""
    _log.error("Exiting at once: %s", lost)
    logging.shutdown()
    os._exit(1)


async def _run(chosen: operator_settings.Settings) -> int:
    from regcred import runtime  # noqa: PLC0415 - see above

    stop = asyncio.Event()
    runtime.install_signals(stop)
    _log.info("Started regcred %s as %s", regcred.__version__, chosen.identity)
    try:
        await runtime.Operator(chosen, on_lost=_exit_at_once).run(stop)
    except Exception:  # noqa: BLE001 - whatever it is, the process ends and says so
        _log.exception("Exiting")
        return 1
    _log.info("Stopped")
    return 0
