"""Four local clouds and an attacker, who share one trust in the control plane's issuer, and a ledger of every secret.

The servers check what they are sent and refuse what the real ones refuse.  Here it is written down besides what they
handed out and to whom, so that a test can say whose login stands in a Secret, count what was asked, and look for what
must not be found anywhere.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from dev.certificates import Authority
from dev.clouds import aws as amazon
from dev.clouds import aws_checks, google_faults, issuers
from dev.clouds.azure import AzureCloud
from dev.clouds.google import CLOUD_PLATFORM, READ_ONLY, GoogleCloud
from dev.clouds.local import Fault, LocalServer
from dev.clouds.quay import Quay

#: What every server says besides while it is down; none of it may be repeated.
OUTAGE_CANARY = "c4n4ry-of-the-outage"


@dataclasses.dataclass(frozen=True)
class Login:
    """A login that a cloud handed out.

    Attributes:
        provider: who handed it out.
        who: the identity that asked, as the cloud knows it.
        password: the login's.
        at: when, seconds of the epoch.
        ends: seconds of the epoch.
    """

    provider: str
    who: str
    password: str = dataclasses.field(repr=False)
    at: float
    ends: float


@dataclasses.dataclass(frozen=True)
class RecordingIssuer(issuers.Issuer):
    """The cluster's issuer, which remembers every token that was shown to a cloud."""

    shown: list[str] = dataclasses.field(default_factory=list, repr=False)

    def claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token of this issuer."""
        self.shown.append(token)
        return super().claims(token)


class Attacker(LocalServer):
    """A host that takes whatever it is sent; nobody may ever come."""

    def __init__(self, authority: Authority | None = None) -> None:
        super().__init__(authority)
        self.route("*", "/{path:.*}", "anything", self._take)

    @staticmethod
    async def _take(_: web.Request) -> web.Response:
        return web.json_response({"access_token": "x.y.z", "refresh_token": "x.y.z", "token": "x.y.z"})

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"


class Clouds:
    """The servers, what they have handed out, and how the operator finds them.

    Attributes:
        planted: every secret value that stands in a source.
        life: seconds that logins live which are handed out from now on.
    """

    def __init__(
        self,
        servers: tuple[amazon.Aws, GoogleCloud, AzureCloud, Quay],
        attackers: tuple[Attacker, Attacker],
        issuer: RecordingIssuer,
    ) -> None:
        self.aws, self.google, self.azure, self.quay = servers
        self.attackers = attackers
        self.issuer = issuer
        self.planted: set[str] = set()
        self._logins: list[Login] = []
        self._steps: set[str] = set()
        self._record()

    @property
    def servers(self) -> tuple[LocalServer, ...]:
        """Every server but Amazon's."""
        return (self.google, self.azure, self.azure.imds, self.quay)

    def live(self, seconds: int) -> None:
        """Let every login that is handed out from now on live so long."""
        self.aws.life = seconds
        self.google.lifetime = seconds
        self.azure.lives.update(refresh=seconds, access=seconds)
        self.quay.life = seconds

    # What was asked and handed out.

    def logins(self, provider: str, who: str) -> list[Login]:
        """Return the logins that one identity (or one whose name begins so) was given, in order."""
        return [login for login in self._logins if login.provider == provider and login.who.startswith(who)]

    def calls(self) -> collections.Counter[str]:
        """Return how often each endpoint was asked, well or badly."""
        counted = collections.Counter(call.action for call in self.aws.calls)
        for server in self.servers:
            counted.update({f"{type(server).__name__}:{name}": number for name, number in server.calls.items()})
        return counted

    def secrets(self) -> dict[str, set[str]]:
        """Return all that is secret: what stands in sources, what was handed out on the way, and the logins."""
        logins = {login.password for login in self._logins}
        sessions = [keys for keys in self.aws._known.values() if keys.session_token]
        steps = {*self._steps, *self.issuer.shown, *self.google._issued} - logins
        steps |= {keys.session_token for keys in sessions} | {keys.secret_access_key for keys in sessions}
        return {"source": set(self.planted), "step": steps - self.planted, "login": logins}

    def _record(self) -> None:
        login, note, judge = self.aws._login, self.aws._note, self.aws._judge_federation
        made: list[Mapping[str, Any]] = []

        def recorded_login(account: str) -> Mapping[str, Any]:
            made.append(login(account))
            return made[-1]

        def recorded_note(action: str, signed: Any, caller: str, outcome: str) -> None:
            note(action, signed, caller, outcome)
            if outcome == "ok" and action in {amazon.ECR, amazon.PUBLIC}:
                password = base64.b64decode(made[-1]["authorizationToken"]).decode().partition(":")[2]
                self._noted("ecr", caller, password, made[-1]["expiresAt"])

        def recorded_judge(request: Any, form: dict[str, str]) -> Any:
            self._steps.add(form.get("WebIdentityToken", ""))
            return judge(request, form)

        self.aws._login, self.aws._note, self.aws._judge_federation = recorded_login, recorded_note, recorded_judge
        google = self.google._issue
        entra, exchange, robot = self.azure.entra_token, self.azure.registries._issue, self.quay._issue

        def recorded_google(principal: str, *args: Any) -> str:
            token = google(principal, *args)
            issued = self.google._issued[token]
            if issued.scopes <= {CLOUD_PLATFORM, READ_ONLY}:
                self._noted("gcr", principal, token, issued.expires_at)
            return token

        def recorded_entra(*args: Any, **claims: Any) -> str:
            token = entra(*args, **claims)
            self._steps.add(token)
            return token

        def recorded_exchange(registry: Any, client: str, kind: str, life: str, **claims: Any) -> str:
            token = exchange(registry, client, kind, life, **claims)
            self._noted(f"acr {kind}", f"{client}@{registry.host}", token, issuers.unverified(token, 1)["exp"])
            return token

        def recorded_robot(name: str, **claims: Any) -> str:
            token = robot(name, **claims)
            if not claims:
                self._noted("quay-federation", name, token, issuers.unverified(token, 1)["exp"])
            return token

        self.google._issue = recorded_google
        self.azure.entra_token = recorded_entra
        self.azure.registries._issue = recorded_exchange
        self.quay._issue = recorded_robot

    def _noted(self, provider: str, who: str, password: str, ends: float) -> None:
        self._logins.append(Login(provider, who, password, time.time(), ends))

    # An outage.

    def go_down(self) -> None:
        """Let every cloud fail from now on, each in a way of its own."""
        for action in (amazon.ECR, amazon.PUBLIC, amazon.ASSUME, amazon.FEDERATE, amazon.WHO):
            self.aws.fail(action, aws_checks.Fault(503, "ServiceUnavailable", OUTAGE_CANARY), times=10_000)
        for endpoint in (google_faults.OAUTH, google_faults.STS, google_faults.IAM):
            self.google.fail(endpoint, Fault(503, f"busy {OUTAGE_CANARY}"), times=10_000)
        for endpoint in ("entra", "exchange", "token"):
            self.azure.fail(endpoint, Fault(500, {"error": OUTAGE_CANARY}), times=10_000)
        self.azure.imds.fail("imds", Fault(503, OUTAGE_CANARY), times=10_000)
        self.google.fail(google_faults.METADATA, Fault(503, OUTAGE_CANARY), times=10_000)
        self.quay.fail("federation", Fault(cut=True), times=10_000)

    def come_back(self) -> None:
        """End the outage; what was counted stays."""
        self.aws._faults.clear()
        for server in self.servers:
            server._faults.clear()


@contextlib.asynccontextmanager
async def start_clouds(public_key: Path, issuer: str) -> AsyncIterator[Clouds]:
    """All clouds, running; they believe the tokens of the issuer with this key."""
    known = RecordingIssuer.of(issuer, public_key)
    believed = aws_checks.Issuer(issuer, known.public_key)
    authority = Authority("the clouds, locally")
    async with contextlib.AsyncExitStack() as stack:
        aws = await stack.enter_async_context(amazon.start_aws(issuer=believed))
        google = await stack.enter_async_context(GoogleCloud(authority))
        azure = await stack.enter_async_context(AzureCloud(authority))
        quay = await stack.enter_async_context(Quay(Authority("the private CA of a Quay")))
        attackers = (
            await stack.enter_async_context(Attacker()),
            await stack.enter_async_context(Attacker(authority)),
        )
        azure.trust(known)
        quay.trust(known)
        yield Clouds((aws, google, azure, quay), attackers, known)


async def pulls(server: LocalServer, ca: str, host: str, repository: str, login: tuple[str, str]) -> bool:
    """Whether a login pulls a manifest, by the handshake that a container runtime makes."""
    basic = base64.b64encode(":".join(login).encode()).decode()
    manifest = f"{server.origin}/v2/{repository}/manifests/latest"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=ca))
    async with aiohttp.ClientSession(connector=connector, headers={"Host": host}) as session:
        async with session.get(manifest) as answer:
            assert answer.status == 401
            words = answer.headers["WWW-Authenticate"].removeprefix("Bearer ").split('",')
            challenge = {name: value.strip('"') for name, _, value in (word.partition("=") for word in words)}
        query = {name: challenge[name] for name in ("service", "scope")}
        headers = {"Authorization": f"Basic {basic}"}
        async with session.get(challenge["realm"], params=query, headers=headers) as answer:
            if answer.status != 200:
                return False
            given = await answer.json()
        bearer = given.get("token") or given["access_token"]
        async with session.get(manifest, headers={"Authorization": f"Bearer {bearer}"}) as answer:
            return answer.status == 200
