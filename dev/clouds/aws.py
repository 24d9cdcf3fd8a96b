"""Amazon's STS, ECR and ECR Public on loopback, for a real SDK in a real process.

    async with start_aws(issuer=Issuer(cluster.issuer, cluster.public_key.read_text())) as aws:
        aws.roles[role_arn] = Trust(subjects=frozenset({"system:serviceaccount:shop:puller"}))
        environment |= aws.environment()

Behind it runs moto, which knows accounts, users and role sessions, but lets anybody in. In front stands a proxy of
ours that checks every call (`dev.clouds.aws_checks`), gives logins a real life, answers what moto does not know
(ECR Public, EKS Pod Identity, instance metadata), counts calls and, on demand, fails in each way that Amazon does.
It keeps and writes no log, so that no secret can get into one.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import datetime as dt
import json
import re
import secrets
import sys
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import multidict
from aiohttp import web

from dev.clouds.aws_checks import (
    Fault,
    Issuer,
    Keys,
    Request,
    Signed,
    Trust,
    check_assume,
    check_signature,
    check_token,
)
from dev.ports import free_port
from dev.processes import Child
from dev.scratch import scratch_folder
from dev.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

#: Action names as the calls are counted and faults are set by.
ECR, PUBLIC = "ecr:GetAuthorizationToken", "ecr-public:GetAuthorizationToken"
ASSUME, FEDERATE, WHO = "sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:GetCallerIdentity"
POD_IDENTITY, METADATA = "pod-identity", "instance-metadata"

_TARGETS = {
    "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken": ECR,
    "SpencerFrontendService.GetAuthorizationToken": PUBLIC,
}
_PUBLIC_REGION = "us-east-1"
_DAY = 86400.0
_MOTO_SIGNATURE = (
    "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
)
_JSON = "application/x-amz-json-1.1"
_METADATA_PATH = "/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True)
class Call:
    """One call that was answered.

    Attributes:
        action: such as `sts:AssumeRole`.
        region: the region it was signed for; "" if it was not signed.
        caller: the ARN, or the service account, that called; "" if it was not recognised.
        outcome: `ok`, or the error's code.
    """

    action: str
    region: str
    caller: str
    outcome: str


@dataclass
class Aws:
    """A running server; made by `start_aws`.

    Attributes:
        url: its address, for `AWS_ENDPOINT_URL`.
        moto: the address of moto behind it.
        session: for requests to moto.
        issuer: the cluster whose service accounts may be federated.
        roles: role ARN to trust policy; a role that is not here cannot be taken on.
        denied: actions that no policy allows.
        life: seconds that a registry login lives.
        password: what a login's password is; "" for one that tells account and serial number.
        calls: what was asked so far.
        ends: password of each registry login handed out, to its end in seconds of the epoch.
    """

    url: str
    moto: str
    session: aiohttp.ClientSession = field(repr=False)
    issuer: Issuer | None = None
    roles: dict[str, Trust] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    life: float = _DAY / 2
    password: str = field(default="", repr=False)
    calls: list[Call] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict, repr=False)
    _known: dict[str, Keys] = field(default_factory=dict, repr=False)
    _expired: set[str] = field(default_factory=set, repr=False)
    _faults: dict[str, collections.deque[Fault]] = field(default_factory=dict)
    _node: Keys | None = field(default=None, repr=False)
    _pods: dict[str, Keys] = field(default_factory=dict, repr=False)
    _metadata_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def environment(self) -> dict[str, str]:
        """What points an SDK here: and nowhere else, since instance metadata is switched off."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}

    def metadata_environment(self) -> dict[str, str]:
        """What makes an SDK find the node's role by instance metadata; see `set_node_role`."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url,
            "NO_PROXY": "127.0.0.1",
        }

    def count(self, action: str) -> int:
        """How often `action` was asked, well or badly."""
        return sum(call.action == action for call in self.calls)

    def fail(self, action: str, fault: Fault, *, times: int = 1000) -> None:
        """Answer the next `times` calls of `action` with `fault`."""
        self._faults[action] = collections.deque([fault] * times)

    def recover(self) -> None:
        """Forget all faults, denials and counted calls."""
        self._faults.clear()
        self.denied.clear()
        self.calls.clear()

    def expire_sessions(self) -> None:
        """Let every credential of a role, handed out until now, be expired."""
        self._expired |= {keys.access_key_id for keys in self._known.values() if keys.session_token}

    async def create_user(self, name: str) -> Keys:
        """Make an IAM user with an access key."""
        await self._ask_moto("iam", "2010-05-08", "test", Action="CreateUser", UserName=name)
        text = await self._ask_moto("iam", "2010-05-08", "test", Action="CreateAccessKey", UserName=name)
        arn = f"arn:aws:iam::123456789012:user/{name}"
        return self._learn(Keys(_element(text, "AccessKeyId"), _element(text, "SecretAccessKey"), arn=arn))

    async def create_session(self, role_arn: str, name: str) -> Keys:
        """Make credentials of a role, as a node or a pod holds them."""
        asked = {"Action": "AssumeRole", "RoleArn": role_arn, "RoleSessionName": name}
        return self._learn_session(await self._ask_moto("sts", "2011-06-15", "test", **asked))

    def set_node_role(self, keys: Keys) -> None:
        """Let instance metadata hand out these credentials (version 2 of its protocol only)."""
        self._node = keys

    def set_pod_role(self, pod_token: str, keys: Keys) -> str:
        """Let the Pod Identity agent hand out these credentials for a pod's token; returns the address for it."""
        self._pods[pod_token] = keys
        return f"{self.url}/v1/credentials"

    def release(self) -> None:
        """Let go of the calls that are kept waiting."""
        self._released.set()
        self._released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.method != "POST":
            return self._metadata(request)
        body = await request.read()
        headers = multidict.CIMultiDict(request.headers)
        got = Request("POST", request.path, headers, body)
        form = dict(urllib.parse.parse_qsl(body.decode(errors="replace")))
        target = headers.get("X-Amz-Target", "")
        action = _TARGETS.get(target, "") if target else f"sts:{form.get('Action', '')}"
        signed, outcome = self._judge(action, got, form)
        if isinstance(outcome, Fault):
            return await self._failed(request, action, signed, outcome)
        answer = await self._answer(action, got)
        self._note(action, signed, outcome, "ok")
        return answer

    def _judge(self, action: str, request: Request, form: dict[str, str]) -> tuple[Signed | None, str | Fault]:
        """Who signed, and who calls or what is wrong."""
        signed: Signed | Fault | None = None
        if action != FEDERATE:
            signed = check_signature(request, self._known, json=action in {ECR, PUBLIC})
        waiting = self._faults.get(action)
        if waiting:
            return (signed if isinstance(signed, Signed) else None), waiting.popleft()
        if isinstance(signed, Fault):
            return None, signed
        if signed is None:
            return None, self._judge_federation(request, form)
        if signed.keys.access_key_id in self._expired:
            code = "ExpiredTokenException" if action in {ECR, PUBLIC} else "ExpiredToken"
            return signed, Fault(403 if code == "ExpiredToken" else 400, code, "The security token is expired")
        if action in self.denied:
            code = "AccessDeniedException" if action in {ECR, PUBLIC} else "AccessDenied"
            text = f"User: {signed.keys.arn} is not authorized to perform: {action}"
            return signed, Fault(400 if action in {ECR, PUBLIC} else 403, code, text)
        wrong: Fault | None = None
        if action in {ECR, PUBLIC}:
            service = action.partition(":")[0]
            if signed.service != service or (action == PUBLIC and signed.region != _PUBLIC_REGION):
                wrong = Fault(400, "InvalidSignatureException", "Credential should be scoped to correct service")
            elif json.loads(request.body or b"{}"):
                wrong = Fault(400, "InvalidParameterException", "nothing but the caller decides about a login")
        elif action == ASSUME:
            wrong = check_assume(signed.keys, form.get("RoleArn", ""), form.get("ExternalId", ""), self.roles)
        return signed, wrong or signed.keys.arn

    def _judge_federation(self, request: Request, form: dict[str, str]) -> str | Fault:
        if "Authorization" in request.headers:
            return Fault(400, "ValidationError", "a federation of identities must not be signed by another one")
        if form.get("DurationSeconds", "900") != "900" or not form.get("RoleSessionName"):
            return Fault(400, "ValidationError", "a session of 900 seconds with a name is expected")
        return check_token(form.get("WebIdentityToken", ""), form.get("RoleArn", ""), self.issuer, self.roles)

    async def _answer(self, action: str, request: Request) -> web.Response:
        if action == PUBLIC:
            return web.json_response({"authorizationData": self._login("public")}, content_type=_JSON)
        text = await self._forward(request)
        if action == ECR:
            given = json.loads(text)["authorizationData"][0]
            account = base64.b64decode(given["authorizationToken"]).decode().partition(":")[2].partition("-")[0]
            login = self._login(account) | {"proxyEndpoint": given["proxyEndpoint"]}
            return web.json_response({"authorizationData": [login]}, content_type=_JSON)
        if action in {ASSUME, FEDERATE}:
            self._learn_session(text)
        return web.Response(text=text, content_type="text/xml")

    def _login(self, account: str) -> dict[str, object]:
        """A login of its own for each call, so that a renewal can be told from what it renews."""
        password = self.password or f"{account}-login-{len(self.calls)}-{secrets.token_hex(4)}"
        ends = dt.datetime.now(dt.UTC).timestamp() + self.life
        self.ends[password] = ends
        return {
            "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
            "expiresAt": round(ends, 3),
        }

    def _metadata(self, request: web.Request) -> web.Response:
        """The Pod Identity agent and instance metadata, each asking for the token that its protocol wants."""
        if request.path == "/v1/credentials":
            self.calls.append(Call(POD_IDENTITY, "", "", "ok"))
            keys = self._pods.get(request.headers.get("Authorization", ""))
            return web.json_response(_document(keys)) if keys else web.Response(status=401)
        if request.method == "PUT" and request.path == "/latest/api/token":
            known = "x-aws-ec2-metadata-token-ttl-seconds" in request.headers
            return web.Response(text=self._metadata_token) if known else web.Response(status=400)
        if request.headers.get("x-aws-ec2-metadata-token") != self._metadata_token:
            return web.Response(status=401)
        if not request.path.startswith(_METADATA_PATH) or self._node is None:
            return web.Response(status=404)
        self.calls.append(Call(METADATA, "", "", "ok"))
        if request.path == _METADATA_PATH:
            return web.Response(text="node")
        return web.json_response({"Code": "Success", "Type": "AWS-HMAC"} | _document(self._node))

    async def _failed(
        self, request: web.Request, action: str, signed: Signed | None, fault: Fault
    ) -> web.StreamResponse:
        self._note(action, signed, signed.keys.arn if signed else "", fault.code or str(fault.status))
        if fault.behaviour == "hang":
            await self._released.wait()
        if fault.behaviour != "answer":
            if request.transport:
                request.transport.close()
            return web.Response(status=500)
        headers = dict(fault.headers)
        if not fault.code:
            kind = headers.pop("Content-Type", "text/html")
            return web.Response(status=fault.status, headers=headers, text=fault.message, content_type=kind)
        if action in {ECR, PUBLIC}:
            text = json.dumps({"__type": fault.code, "message": fault.message})
            return web.Response(status=fault.status, headers=headers, text=text, content_type=_JSON)
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{fault.code}</Code><Message>{fault.message}</Message>"
            f"</Error><RequestId>{secrets.token_hex(8)}</RequestId></ErrorResponse>"
        )
        return web.Response(status=fault.status, headers=headers, text=text, content_type="text/xml")

    def _note(self, action: str, signed: Signed | None, caller: str, outcome: str) -> None:
        self.calls.append(Call(action, signed.region if signed else "", caller, outcome))

    def _learn(self, keys: Keys) -> Keys:
        self._known[keys.access_key_id] = keys
        return keys

    def _learn_session(self, text: str) -> Keys:
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Arn")
        return self._learn(Keys(*(_element(text, name) for name in names)))

    async def _ask_moto(self, service: str, version: str, key: str, **form: str) -> str:
        body = urllib.parse.urlencode({**form, "Version": version}).encode()
        headers = {
            "Authorization": _MOTO_SIGNATURE.format(key, service),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return await self._forward(Request("POST", "/", headers, body))

    async def _forward(self, request: Request) -> str:
        headers = _passed_on(request.headers)
        async with self.session.post(self.moto, data=request.body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise RuntimeError(f"moto answered with HTTP {answer.status}")
            return text


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    kept = ("Authorization", "Content-Type", "X-Amz-Target", "X-Amz-Date", "X-Amz-Security-Token")
    return {name: headers[name] for name in kept if name in headers}


def _element(text: str, name: str) -> str:
    match = re.search(f"<{name}>([^<]*)</{name}>", text)
    if match is None:
        raise RuntimeError(f"moto's answer has no {name}")
    return match[1]


def _document(keys: Keys) -> dict[str, str]:
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
    return {
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "Token": keys.session_token,
        "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@contextlib.asynccontextmanager
async def start_aws(*, issuer: Issuer | None = None, life: float = _DAY / 2) -> AsyncIterator[Aws]:
    """A running server with moto behind it, both gone at the end.

    Args:
        issuer: the cluster whose service accounts may be federated; may also be set later.
        life: seconds that a registry login lives.
    """
    port, moto_port = free_port(), free_port()
    async with aiohttp.ClientSession() as session:
        aws = Aws(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{moto_port}/", session, issuer, life=life)
        with scratch_folder("aws") as folder:
            moto = await _start_moto(folder, moto_port)
            runner = web.AppRunner(_application(aws), access_log=None, shutdown_timeout=1)
            try:
                await eventually(lambda: _answers(aws, moto), "moto answers", seconds=60)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", port).start()
                yield aws
            finally:
                aws.release()
                await runner.cleanup()
                await moto.stop(kill=True)


def _application(aws: Aws) -> web.Application:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", aws.handle)
    return application


async def _start_moto(folder: Path, port: int) -> Child:
    log = folder / "moto.log"
    return await Child.start(
        "moto", sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), log=log
    )


async def _answers(aws: Aws, moto: Child) -> bool:
    moto.require_alive()
    try:
        async with aws.session.get(f"{aws.moto}moto-api/data.json") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
