"""Why does this pull fail, or work?  From facts of the cluster to one cause and one next step.

`gathering` reads the cluster, `diagnose` decides and is pure, so that every rule is held by a table.
"""

from regcred.diagnosis.causes import Cause
from regcred.diagnosis.diagnose import diagnose
from regcred.diagnosis.facts import Facts, Finding, Step

__all__ = ["Cause", "Facts", "Finding", "Step", "diagnose"]
