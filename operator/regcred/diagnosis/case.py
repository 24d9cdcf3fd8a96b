"""One diagnosis under way: the facts, and what is read off them again and again.  Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from regcred import dockerconfig
from regcred.api import conditions, times
from regcred.api import resource as api_resource
from regcred.credentials.verification import Outcome
from regcred.diagnosis import keyring
from regcred.diagnosis.causes import Cause
from regcred.diagnosis.facts import Choice, Facts, Finding, Step
from regcred.distribution import selection
from regcred.kubelet import Symptom


class Case:
    """One diagnosis under way."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.symptom = facts.container.symptom if facts.container.stuck else Symptom.UNKNOWN
        self.host = ""
        self.choices: tuple[Choice, ...] = ()
        try:
            self.host = dockerconfig.normalise_image(facts.image).host
            self.choices = keyring.choices(facts.image, facts.listed, facts.secrets)
        except dockerconfig.BadImage:
            pass
        self.serving = list(self._serving())
        #: Resources that are for this namespace, in the order in which they win.
        self.applying = [row for row in self.serving if self._applies(row[0])]
        accepted = [proof for proof in facts.proofs if proof.verdict.outcome in (Outcome.OK, Outcome.ANONYMOUS_OK)]
        self.accepted = accepted[0] if accepted else None

    def finding(self, cause: Cause, explanation: str, step: Step | None = None) -> Finding:
        """Return what this diagnosis comes to."""
        return Finding(self.facts, cause, explanation, step, self.choices)

    def _applies(self, resource: api_resource.Resource) -> bool:
        facts = self.facts
        protected = (facts.operator_namespace, *facts.protected)
        return facts.labels is not None and selection.applies(resource, facts.namespace, facts.labels, protected)

    def _serving(self) -> Iterator[tuple[api_resource.Resource, int]]:
        """Yield resources that have a login for the image, and where in them, in the order in which they win."""
        ranked = sorted(
            self.facts.resources,
            key=lambda each: (each.cluster, each.creation_timestamp, each.namespace, each.name),
        )
        for resource in ranked:
            for index, entry in enumerate(resource.spec.registries if resource.spec is not None else ()):
                if entry.server == "*":
                    servers: Iterable[str] = self._imported(resource)
                else:
                    servers = map(dockerconfig.canonical_server, (entry.server, *entry.aliases))
                if keyring.matches(servers, self.facts.image):
                    yield resource, index
                    break

    def _imported(self, resource: api_resource.Resource) -> list[str]:
        """Return the servers that the import of a whole docker config has brought."""
        return [
            row.server
            for secret in self.facts.secrets.values()
            if secret is not None and secret.view is not None and secret.ours
            for row in secret.view.servers
            if row.uid == resource.uid
        ]

    def resource_of(self, choice: Choice) -> api_resource.Resource | None:
        """Return the resource that a login comes from, or None."""
        uid = choice.standing.uid if choice.standing is not None else ""
        return next((resource for resource in self.facts.resources if resource.uid == uid), None)

    @staticmethod
    def spelled(resource: api_resource.Resource, server: str) -> str:
        """Return the `server` of the entry that a canonical server comes from."""
        assert resource.spec is not None  # noqa: S101 - the caller has looked
        for entry in resource.spec.registries:
            if entry.server != "*" and server in map(
                dockerconfig.canonical_server, (entry.server, *entry.aliases)
            ):
                return entry.server
        return resource.spec.registries[0].server

    def row(self, resource: api_resource.Resource, server: str) -> dict[str, str]:
        """Return the row of a registry in the status."""
        rows = resource.status.get("registries")
        found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        wanted = {server} if resource.spec is None else {server, self.spelled(resource, server)}
        return next((row for row in found if row.get("server") in wanted), {})

    @staticmethod
    def condition(resource: api_resource.Resource, kind: str) -> dict[str, str]:
        """Return a condition of a resource, or nothing."""
        return conditions.find_condition(resource.status.get("conditions"), kind) or {}

    def failure(self, resource: api_resource.Resource, reason: str = "") -> str:
        """Return the message of a failure in this namespace that the status tells, or ""."""
        for row in resource.status.get("failures") or ():
            if row.get("namespace") == self.facts.namespace and reason in ("", row.get("reason")):
                return str(row.get("message", ""))
        return ""

    def ended(self, choice: Choice) -> bool:
        """Whether a login has ended, as far as regcred knows."""
        try:
            expires = choice.standing.expires if choice.standing is not None else ""
            return bool(expires) and times.parse_time(expires) <= self.facts.now
        except ValueError:
            return False

    def written(self, choice: Choice) -> dt.datetime | None:
        """Return when the data of the Secret of a login was written last."""
        secret = self.facts.secrets.get(choice.secret)
        return secret.written if secret is not None else None

    @staticmethod
    def source(choice: Choice) -> str:
        """Return where a login comes from, for people."""
        return choice.source or f"the Secret {choice.secret}"

    def described(self, choice: Choice) -> str:
        """Return which login is sent, and from where, as the beginning of a sentence."""
        until = (
            f", until {choice.standing.expires}" if choice.standing is not None and choice.standing.expires else ""
        )
        source = f" (from {choice.source}{until})" if choice.source else ""
        return f"The kubelet sends the login under {choice.server} of the Secret {choice.secret}{source}"

    def means(self, resource: api_resource.Resource) -> bool:
        """Whether a resource, valid or not, names the registry of the image."""
        servers = []
        for spelled in self.facts.spelled.get(resource.uid, ()):
            try:
                servers.append(dockerconfig.canonical_server(spelled))
            except dockerconfig.BadServer:
                continue
        return bool(keyring.matches(servers, self.facts.image))
