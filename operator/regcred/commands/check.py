"""`check`: are these resources valid?  Without a cluster, for a pipeline."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from regcred.commands import common, documents


@click.command()
@click.option("-f", "--filename", "paths", multiple=True, required=True, metavar="FILE", help="File, folder or -.")
@click.option("-R", "--recursive", is_flag=True, help="Folders below, too.")
@common.output
def check(paths: Sequence[str], recursive: bool, form: str | None) -> None:  # noqa: FBT001 - click's
    """Check resources in files, without a cluster: for a GitOps pipeline.

    Every rule of the API server and of the operator is held against every resource of regcred in the files; other
    objects are passed over. Each problem is told with file and line. It ends with 0 where there is none, and with 1
    where there are some.
    """
    found: list[documents.Document] = []
    faults: list[documents.Fault] = []
    for name, text in documents.read(paths, recursive=recursive):
        loaded, wrong = documents.load(name, text)
        found += loaded
        faults += wrong
    faults += documents.repeated(found)
    faults.sort(key=lambda fault: (fault.file, fault.line))
    if form:
        rows = [
            {"file": f.file, "line": f.line, "resource": f.key, "field": f.path, "message": f.message}
            for f in faults
        ]
        common.emit({"resources": len(found), "valid": not faults, "problems": rows}, form)
    else:
        for fault in faults:
            click.echo(common.plain(fault))
        resources = f"{len(found)} resource{'' if len(found) == 1 else 's'} of regcred"
        told = f"{len(faults)} problem{'' if len(faults) == 1 else 's'}" if faults else "no problem"
        click.echo(f"{resources}, {told}", err=bool(faults))
    sys.exit(common.FOUND if faults else 0)
