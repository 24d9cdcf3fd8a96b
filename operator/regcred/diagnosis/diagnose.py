"""From facts to one cause and one next step.  Pure: every rule is a row of a table in the tests.

What the kubelet says comes first where it says something definite, then what the kubelet would send, then why it has
nothing to send: the pod's list, the account, the Secret, the resource, in the order in which a login travels.
"""

from __future__ import annotations

from regcred.diagnosis import delivery, sending
from regcred.diagnosis.case import Case
from regcred.diagnosis.facts import Facts, Finding


def diagnose(facts: Facts) -> Finding:
    """Return why an image is pulled, or not."""
    case = Case(facts)
    for look in (sending.told, sending.unreadable, sending.poisoned, sending.sent):
        found = look(case)
        if found is not None:
            return found
    return delivery.unsent(case)
