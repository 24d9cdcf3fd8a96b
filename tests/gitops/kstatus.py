"""The verdict of kstatus on a custom resource, restated.  Source: sigs.k8s.io/cli-utils, pkg/kstatus/status, generic.go.

Flux and `kpt` wait for this verdict; both hand it the object as the API server returns it.
"""

from __future__ import annotations

from typing import Any


def verdict(document: dict[str, Any]) -> str:
    """Return `Terminating`, `InProgress`, `Failed` or `Current`."""
    metadata, status = document["metadata"], document.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return "InProgress"
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Ready", "True") != "True":
        return "InProgress"
    return "Current"
