"""The operator's process loads what it needs, and nothing that merely happens to be installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from dev.operator_process import ROOT

_PROBE = """
import importlib.metadata, json, sys
import regcred.cli, regcred.runtime
owners = importlib.metadata.packages_distributions()
names = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({owner for name in names for owner in owners.get(name, ())})))
"""


def test_nothing_beyond_its_own_requirements() -> None:
    """Every package that is loaded is one of the locked requirements: some load others wherever they find them."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    loaded = {re.sub(r"[-_.]+", "-", name).lower() for name in json.loads(done.stdout)}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    # Small ones that requests, oauthlib and cryptography take where they are; `google` has several owners.
    harmless = {"regcred", "chardet", "blinker", "bcrypt", "protobuf"}
    assert loaded - {re.sub(r"[-_.]+", "-", name).lower() for name in locked} - harmless == set()
