"""Every provider in every identity mode: what is declared becomes a login that pulls, and the status says so."""

from __future__ import annotations

import datetime as dt
import json
import time

from dev.clouds.aws import FEDERATE
from dev.clouds.azure_registries import ACR_AUDIENCE
from dev.clouds.google import READ_ONLY
from dev.clouds.issuers import audiences, unverified
from dev.operator_process import NAMESPACE
from regcred.api import times
from tests.clouds import cloud_names, many
from tests.clouds.conftest import Stage
from tests.clouds.hub import TOLD, config_in, docker_config
from tests.clouds.local_clouds import Clouds


async def test_secrets_hold_the_very_login(first: Stage, clouds: Clouds) -> None:
    """Each mode's Secret is, byte for byte, the docker config of a login that its cloud gave its own identity."""
    for mode in first.modes:
        data = first.sights[mode.name].data
        if mode.document is None:
            issued = [login.password for login in mode.issued(clouds)]
            assert data in [docker_config(mode.servers, mode.username, one) for one in issued], mode.name
        else:
            auths = json.loads(data)["auths"]
            assert list(auths) == mode.servers
            assert json.loads(auths[mode.servers[0]]["password"]) == mode.document
            assert data == docker_config(mode.servers, mode.username, auths[mode.servers[0]]["password"]), (
                mode.name
            )


async def test_logins_pull(first: Stage, clouds: Clouds) -> None:
    """The registries of Google, Azure and Quay let each login pull what its identity may pull, and nothing else."""
    proven = 0
    for mode in first.modes:
        if mode.proof is None:
            continue
        entry = json.loads(first.sights[mode.name].data)["auths"][mode.servers[0]]
        assert await mode.proof(clouds, entry["username"], entry["password"]), mode.name
        proven += 1
    assert proven >= 15


async def test_status_rows_say_what_holds(first: Stage, clouds: Clouds) -> None:
    """A status row names provider, identity, issue, end and next renewal as the cloud has them, and is Issued."""
    for mode in first.modes:
        sight = first.sights[mode.name]
        row = sight.row
        assert sight.ready["reason"] == "Succeeded", mode.name
        assert (row["server"], row["provider"], row["reason"]) == (mode.servers[0], mode.provider, "Issued")
        assert row["identity"].startswith(mode.identity), mode.name
        if mode.document is not None:
            assert "expiresAt" not in row
            assert "nextRefreshAt" not in row
            assert sight.resource["status"]["summary"]["expiresAt"] == "never"
            continue
        issued_at, ends, next_at = (
            times.parse_time(row[name]) for name in ("issuedAt", "expiresAt", "nextRefreshAt")
        )
        (issued,) = [login for login in mode.issued(clouds) if login.password.encode() in sight.data]
        # An end may be told too early, never too late.
        assert -TOLD <= ends.timestamp() - issued.ends <= 0, mode.name
        assert issued_at.timestamp() <= issued.at + 1, mode.name
        assert issued_at < next_at <= issued_at + (ends - issued_at) / 2 + dt.timedelta(seconds=1), mode.name
        assert sight.resource["status"]["summary"]["expiresAt"] == row["expiresAt"]


async def test_secrets_say_when_they_end(first: Stage) -> None:
    """The Secret's own annotation names, for each server, the resource it comes from and its end."""
    for mode in first.modes:
        sight = first.sights[mode.name]
        servers = json.loads(sight.secret["metadata"]["annotations"]["regcred.io/servers"])
        assert sorted(servers) == sorted(mode.servers)
        for row in servers.values():
            assert row["from"].endswith(f"/{mode.name}")
            assert row.get("expires") == sight.row.get("expiresAt")


async def test_tokens_are_for_one_audience_and_ten_minutes(first: Stage, clouds: Clouds) -> None:
    """Each Kubernetes token that a cloud was shown is of the account declared, for that cloud alone, and short."""
    shown = {*clouds.issuer.shown}
    federations = [unverified(token, 1) for token in shown]
    subjects = {claims["sub"] for claims in federations}
    wanted = {
        f"system:serviceaccount:{mode.home}:{name}"
        for mode in first.modes
        if mode.provider in {"gcr", "acr", "quay-federation"}
        for name in mode.accounts
    }
    assert wanted <= subjects <= wanted | {f"system:serviceaccount:{NAMESPACE}:{many.NAME}"}
    for claims in federations:
        assert len(audiences(claims)) == 1
        assert "kubernetes" not in audiences(claims)[0]
        assert claims["exp"] - claims["iat"] <= 600
        assert claims["iat"] <= time.time()
    callers = {call.caller for call in clouds.aws.calls if call.action == FEDERATE and call.outcome == "ok"}
    accounts = {
        f"system:serviceaccount:{m.home}:{n}" for m in first.modes if m.provider == "ecr" for n in m.accounts
    }
    assert accounts <= callers


async def test_google_is_asked_for_read_only(first: Stage, clouds: Clouds) -> None:
    """No login of Google's may do more than read, unless the entry says so."""
    tokens = [json.loads(first.sights[mode.name].data)["auths"] for mode in first.modes if mode.provider == "gcr"]
    scopes = {
        scope
        for auths in tokens
        for entry in auths.values()
        if entry["username"] == "oauth2accesstoken"
        for scope in clouds.google._issued[entry["password"]].scopes
    }
    assert scopes == {READ_ONLY}


async def test_azure_tokens_are_for_registries(first: Stage, clouds: Clouds) -> None:
    """Entra's tokens are for container registries only, and each registry saw the one meant for it."""
    entra = [unverified(token, 1) for token in clouds.secrets()["step"] if unverified(token, 1).get("tid")]
    assert {claims["aud"] for claims in entra} == {ACR_AUDIENCE}
    assert len(entra) >= sum(mode.provider == "acr" for mode in first.modes)


async def test_one_call_a_cloud_for_all_namespaces(first: Stage, clouds: Clouds) -> None:
    """A thousand namespaces with three clouds cost one fetch a cloud, and all hold the same bytes."""
    served = {config_in(first.pull_secrets[f"many-{number:04}"]) for number in range(many.MANY)}
    assert len(served) == 1
    auths = json.loads(served.pop())["auths"]
    servers = {"ecr": cloud_names.ECR, "gcr": cloud_names.GAR, "acr": many.HOST}
    assert sorted(auths) == sorted(servers.values())
    for cloud, known_as in many.KNOWN_AS.items():
        issued = clouds.logins(*known_as)
        assert auths[servers[cloud]]["password"] in {login.password for login in issued}
        assert len(issued) <= 2, "one at issue, and perhaps one at renewal"
