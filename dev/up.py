"""`make up` and `make down`: the stage of the demonstration, left running to play with.

`start` leaves a process behind that owns the control plane, the registry and the operator; `stop` ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dev import demo
from dev.operator_process import ROOT
from dev.processes import tail

RUN = ROOT / ".run"
STATE = RUN / "state.json"
LOG = RUN / "up.log"


def start() -> None:
    """Start everything, wait until it stands, and say how to use it."""
    if _alive():
        print("It is running already:")
        _tell()
        return
    RUN.mkdir(exist_ok=True)
    STATE.unlink(missing_ok=True)
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.up", "serve"], stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
    print("Starting control plane, registry and operator (the first time they are built, which takes minutes) ...")
    shown = 0
    while not STATE.exists():
        time.sleep(0.2)
        text = LOG.read_text(encoding="utf-8", errors="replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if process.poll() is not None:
            sys.exit(f"It did not start:\n{tail(LOG)}")
    _tell()


def stop() -> None:
    """Stop everything that `start` left running."""
    if not _alive():
        print("Nothing is running.")
        STATE.unlink(missing_ok=True)
        return
    os.kill(json.loads(STATE.read_text(encoding="utf-8"))["pid"], signal.SIGTERM)
    for _ in range(300):
        if not _alive():
            print("Stopped; nothing is left.")
            return
        time.sleep(0.1)
    sys.exit(f"It did not stop within 30 s; its log: {LOG}")


async def serve() -> None:
    """Keep the stage up until a signal comes."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with demo.stage(demo.Story()) as on:
        await on.cluster.apply(demo.login("correct-horse"), demo.namespace("team-a"), demo.namespace("team-b"))
        example = RUN / "platform.json"
        example.write_text(json.dumps(demo.resource(on.registry), indent=2), encoding="utf-8")
        state = {
            "pid": os.getpid(),
            "kubeconfig": str(on.cluster.admin_kubeconfig),
            "kubectl": str(on.cluster.kubectl_program),
            "registry": on.registry.host,
            "log": str(on.operator.log),
        }
        temporary = STATE.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.rename(STATE)
        try:
            await ending.wait()
        finally:
            STATE.unlink(missing_ok=True)


def _alive() -> bool:
    try:
        os.kill(json.loads(STATE.read_text(encoding="utf-8"))["pid"], 0)
    except (OSError, ValueError):
        return False
    return True


def _tell() -> None:
    state = json.loads(STATE.read_text(encoding="utf-8"))
    program = Path(state["kubectl"])
    print(
        f"""
Use it with:
  export KUBECONFIG={state["kubeconfig"]} PATH={program.parent}:$PATH
  kubectl apply -f .run/platform.json        # a registry at {state["registry"]}, for the namespaces team-*
  kubectl get crcred -o wide
  kubectl create namespace team-c && kubectl get secret,sa -n team-c
  tail -f {state["log"]}                     # what the operator says
Stop it with: make down"""
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start"]:
            start()
        case ["stop"]:
            stop()
        case ["serve"]:
            asyncio.run(serve())
        case _:
            sys.exit("usage: python -m dev.up start|stop")
