"""A real private registry on loopback: Debian's docker-registry, with one of two ways to check a login.

    async with start_registry({"alice": User("s3cret", {"private/*": PULL})}) as registry:
        await registry.push("private/app", "1")
        code, said = await registry.skopeo_inspect("private/app:1", authfile)

`skopeo` reads a login exactly as the container tools of a node do, so a Secret's bytes are proven by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import secrets
import ssl
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import aiohttp
import bcrypt
import yaml

from dev.binaries import registry_tools
from dev.certificates import Authority
from dev.ports import free_port
from dev.processes import Child, run
from dev.scratch import scratch_folder
from dev.token_server import ISSUER as TOKEN_ISSUER
from dev.token_server import PUSH, SERVICE, TokenServer, User, encode_basic, start_token_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from dev.debian import PackageTree

_PUSHER = "dev-pusher"
_READY_SECONDS = 20.0
_POLL_SECONDS = 0.05
_BCRYPT_ROUNDS = 4
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(kw_only=True)
class Registry:
    """A running registry. `host` is what stands in an image name; `tokens` is None with htpasswd."""

    folder: Path
    tools: PackageTree
    port: int
    users: dict[str, User]
    tokens: TokenServer | None = None
    ca_file: Path | None = None
    _child: Child | None = field(default=None, init=False)

    @property
    def host(self) -> str:
        """Host and port, as an image name has them."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of the registry's API."""
        return f"{'https' if self.ca_file else 'http'}://{self.host}"

    def set_password(self, name: str, password: str) -> None:
        """Change (or make) a user's password; it counts from the next request on."""
        known = self.users.get(name)
        self.users[name] = User(password, known.rights if known else {})
        self._publish_users()

    async def start(self) -> None:
        """Start the server, on the same port and data as before, and wait until it answers."""
        self._publish_users()
        config = self.folder / "config.yml"
        self._child = await Child.start(
            "docker-registry",
            *(self.tools.program("docker-registry"), "serve", config),
            log=self.folder / "registry.log",
            env=self.tools.environment(),
        )
        async with asyncio.timeout(_READY_SECONDS), self._session() as session:
            while True:
                self._child.require_alive()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/v2/") as answer:
                        if answer.status in {200, 401}:
                            return
                await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop the server at once: every pull fails until the next `start`."""
        if self._child is not None:
            await self._child.stop(kill=True)
            self._child = None

    async def push(self, repository: str, tag: str) -> str:
        """Push one tiny valid image and return its digest."""
        layer = _empty_layer()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"regcred.dev/image": f"{repository}:{tag}"}},
            "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer))]},
        }
        image = json.dumps(config, sort_keys=True).encode()
        async with self._session() as session:
            headers = await self._pusher_headers(repository)
            described = []
            for kind, content in ((_CONFIG, image), (_LAYER, layer)):
                begin = await session.post(f"{self.url}/v2/{repository}/blobs/uploads/", headers=headers)
                begin.raise_for_status()
                target = begin.headers["Location"] + f"&digest={_digest(content)}"
                (await session.put(target, data=content, headers=headers)).raise_for_status()
                described.append({"mediaType": kind, "size": len(content), "digest": _digest(content)})
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": described[0],
                "layers": described[1:],
            }
            body = json.dumps(manifest, sort_keys=True).encode()
            done = await session.put(
                f"{self.url}/v2/{repository}/manifests/{tag}",
                data=body,
                headers=headers | {"Content-Type": _MANIFEST},
            )
            done.raise_for_status()
        return _digest(body)

    async def skopeo_inspect(self, image: str, authfile: Path | None) -> tuple[int, str]:
        """Let skopeo look at `image` (`repository:tag`) with this docker config; exit code and stderr."""
        return await self._skopeo("inspect", f"docker://{self.host}/{image}", authfile)

    async def skopeo_pull(self, image: str, authfile: Path | None) -> tuple[int, str]:
        """Let skopeo pull the whole image, layers too; exit code and stderr."""
        with scratch_folder("pull") as folder:
            target = f"dir:{folder / 'image'}"
            return await self._skopeo("copy", f"docker://{self.host}/{image}", authfile, target)

    async def _skopeo(self, verb: str, image: str, authfile: Path | None, *more: str) -> tuple[int, str]:
        side = "src-" if verb == "copy" else ""
        login = f"--{side}no-creds" if authfile is None else f"--authfile={authfile}"
        trust = f"--{side}cert-dir={self.ca_file.parent}" if self.ca_file else f"--{side}tls-verify=false"
        # A home of its own: nothing a developer is logged in to may help.
        env = self.tools.environment() | {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}
        env.pop("REGISTRY_AUTH_FILE", None)
        words = ("--insecure-policy", verb, login, trust, image, *more)
        done = await run(self.tools.program("skopeo"), *words, env=env, check=False, seconds=60)
        return done.returncode, done.stderr

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else False
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    async def _pusher_headers(self, repository: str) -> dict[str, str]:
        if self.tokens is not None:
            scope = f"repository:{repository}:pull,push"
            return {"Authorization": f"Bearer {self.tokens.token(_PUSHER, (scope,))}"}
        return {"Authorization": encode_basic(_PUSHER, self.users[_PUSHER].password)}

    def _publish_users(self) -> None:
        if self.tokens is not None:
            self.tokens.users = dict(self.users)
            return
        lines = []
        for name, user in self.users.items():
            hashed = bcrypt.hashpw(user.password.encode(), bcrypt.gensalt(_BCRYPT_ROUNDS, prefix=b"2a"))
            lines.append(f"{name}:{hashed.decode()}\n")
        fresh = self.folder / "htpasswd.new"
        fresh.write_text("".join(lines))
        fresh.replace(self.folder / "htpasswd")  # read again by the registry when its time stamp changed


@contextlib.asynccontextmanager
async def start_registry(
    users: Mapping[str, User], *, auth: Literal["htpasswd", "token"] = "htpasswd", tls: bool = False
) -> AsyncIterator[Registry]:
    """A running registry that lets these users in, gone at the end.

    With htpasswd any user may pull everything; with a token server each user has rights of its own. With
    `tls` both serve HTTPS under an authority of their own, whose certificate is `ca_file`.
    """
    tools = await registry_tools()
    everyone = {**users, _PUSHER: User(secrets.token_urlsafe(), {"*": PUSH})}
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder("registry"))
        ca_file, pair, context = _certificates(folder) if tls else (None, None, None)
        tokens = None
        if auth == "token":
            tokens = await stack.enter_async_context(start_token_server(everyone, tls=context))
        registry = Registry(
            folder=folder, tools=tools, port=free_port(), users=everyone, tokens=tokens, ca_file=ca_file
        )
        _write_config(registry, pair)
        stack.push_async_callback(registry.stop)
        await registry.start()
        yield registry


def _certificates(folder: Path) -> tuple[Path, tuple[Path, Path], ssl.SSLContext]:
    authority = Authority("regcred-dev-registry")
    trust = folder / "trust"  # skopeo takes every *.crt of the folder for an authority
    trust.mkdir()
    ca_file = trust / "ca.crt"
    ca_file.write_text(authority.certificate)
    pair = authority.server("registry").write(folder, "registry")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    return ca_file, pair, context


def _write_config(registry: Registry, pair: tuple[Path, Path] | None) -> None:
    folder = registry.folder
    http: dict[str, object] = {"addr": registry.host, "secret": secrets.token_urlsafe()}
    if pair:
        http["tls"] = {"certificate": str(pair[0]), "key": str(pair[1])}
    auth: dict[str, object] = {"htpasswd": {"realm": "regcred-dev", "path": str(folder / "htpasswd")}}
    if registry.tokens is not None:
        bundle = folder / "tokens.crt"
        bundle.write_text(registry.tokens.certificate)
        realm = {"realm": registry.tokens.url, "service": SERVICE, "issuer": TOKEN_ISSUER}
        auth = {"token": realm | {"rootcertbundle": str(bundle)}}
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
        "auth": auth,
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))


def _empty_layer() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w"):
        pass
    return gzip.compress(content.getvalue(), mtime=0)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_authfile(path: Path, host: str, username: str, password: str) -> Path:
    """A docker config with one login, for a test that needs one which regcred did not write."""
    login = encode_basic(username, password).removeprefix("Basic ")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"auths": {host: {"auth": login}}}, file)
    return path
