"""`sojourn svid`, `jwt`, `rule` and `token` beside a real `up`: what they print, what they write, how they end."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from attestor.methods.node.join_token import JoinToken
from journeys.processes import SOJOURN, Finished, started
from journeys.up import TRUST_DOMAIN, up

_RULES = f"""\
rules:
  - name: journey
    when: ["unix:uid:{os.getuid()}"]
    spiffe_id: /journey
    hint: own
    x509_ttl: 5s
  - name: nobody
    when: ["unix:uid:{os.getuid() + 1}"]
    spiffe_id: /nobody
"""
_OWN = f"spiffe://{TRUST_DOMAIN}/journey"
_HANGS_UP = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {1}); print('ready', flush=True)\n"
_HANGS_UP += "while signal.sigwait({1}): print('told', flush=True)"


def sentence(found: Finished, code: int) -> str:
    """The one line on stderr of a command that ended with `code` and printed nothing."""
    assert (found.code, found.out, len(found.err.splitlines())) == (code, "", 1), found
    return found.err


async def test_svid() -> None:
    """Fetch shows what was given and no key; write makes files that fit together; watch tells a rotation."""
    async with up(rules=_RULES) as running:
        (told,) = json.loads((await running.sojourn("svid", "fetch", "--json")).out)
        assert (told["spiffe_id"], told["hint"], len(told["instance"])) == (_OWN, "own", 32)
        shown = await running.sojourn("svid", "fetch", "--hint", "own")
        assert _OWN in shown.out
        assert "PRIVATE" not in shown.out
        assert "`other`" in sentence(await running.sojourn("svid", "fetch", "--hint", "other"), 1)

        folder = running.places.state.parent / "files"
        assert (await running.sojourn("svid", "write", str(folder), "--once")).code == 0
        fits_together(folder / "current")

        command = (SOJOURN, "svid", "watch", "--json")
        home = running.places.state.parent
        async with started(*command, folder=home, name="watch", environment=running.environment) as watching:
            serials = {json.loads(await watching.line(_OWN))["serial"] for _ in range(2)}
            assert len(serials) == 2
            assert await watching.end(signal.SIGINT) == 130


async def test_svid_write_keeps_files_fresh_and_tells_a_process() -> None:
    """After each change the process named by --pid gets SIGHUP; when that one ends, so does the command."""
    async with up(rules=_RULES) as running:
        home, folder = running.places.state.parent, running.places.state.parent / "files"
        async with started(sys.executable, "-c", _HANGS_UP, folder=home, name="server") as server:
            await server.line("ready")
            command = (SOJOURN, "svid", "write", str(folder), "--pid", str(server.pid))
            async with started(*command, folder=home, name="write", environment=running.environment) as writing:
                first = (await writing.line("written")).split()[-1]
                await server.line("told")
                second = (await writing.line("written")).split()[-1]
                await server.line("told")
                assert first != second
                fits_together(folder / "current")
                await server.end(signal.SIGKILL)
                assert await writing.ended() == 1
                assert f"the process {server.pid} " in writing.errors.read_text()


async def test_svid_write_tells_whom_a_pid_file_names_and_runs_a_command() -> None:
    """With tokens, modes and lines of JSON; a pid file that names nobody yet ends nothing; once is once."""
    async with up(rules=_RULES) as running:
        home, folder, told = running.places.state.parent, running.places.state.parent / "files", "told"
        more = ("--jwt", "vault.jwt=vault,other", "--federated", "--mode", "0644", "--key-mode", "0640")
        order = ("svid", "write", str(folder), *more, "--json", "--pid-file", str(home / "server.pid"))
        command = (SOJOURN, *order, "--", "/bin/sh", "-c", f'echo "$SOJOURN_SVID_FOLDER" >> {home / told}')
        async with started(*command, folder=home, name="write", environment=running.environment) as writing:
            first = json.loads(await writing.line("folder"))
            assert first["told"] == ["command /bin/sh"]
            assert "nobody was told" in first["not_told"][0]
            async with started(sys.executable, "-c", _HANGS_UP, folder=home, name="server") as server:
                await server.line("ready")
                (home / "server.pid").write_text(str(server.pid))
                while (second := json.loads(await writing.line("folder")))["told"] == first["told"]:
                    assert "nobody was told" in second["not_told"][0]  # it was written before the file was there
                await server.line("told")
                assert second["told"] == [f"process {server.pid}", "command /bin/sh"]
            fits_together(folder / "current")
            written = (home / told).read_text().split()
            assert written[0] == first["folder"]
            assert second["folder"] in written[1:]
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "current").iterdir()}
            assert (modes["svid.pem"], modes["key.pem"], modes["vault.jwt"]) == (0o644, 0o640, 0o640)
            assert (folder / "current" / f"bundle.{TRUST_DOMAIN}.pem").exists()
            assert await writing.end(signal.SIGINT) == 130
        once = await running.sojourn("svid", "write", str(home / "once"), "--once", "--", "/bin/false")
        assert once.code != 0
        assert "failed with the code 1" in once.err
        fits_together(home / "once" / "current")
        for wrong in (
            ("--jwt", "../x=y"),
            ("--jwt", "key.pem=y"),
            ("--jwt", "a.jwt="),
            ("--key-mode", "x"),
            ("--group", "-"),
        ):
            assert (await running.sojourn("svid", "write", str(home / "wrong"), *wrong)).code == 2
        assert sentence(await running.sojourn("svid", "write", str(home / "wrong"), "--key-mode", "0644"), 1)
        assert not (home / "wrong").exists()


def fits_together(folder: Path) -> None:
    """The key is the leaf's, the chain ends at the bundle, and only its owner can read the key."""
    chain = x509.load_pem_x509_certificates((folder / "svid.pem").read_bytes())
    key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.public_key().public_bytes(*spki) == chain[0].public_key().public_bytes(*spki)
    roots = x509.load_pem_x509_certificates((folder / "bundle.pem").read_bytes())
    assert chain[-1].issuer in {root.subject for root in roots}
    assert not stat.S_IMODE((folder / "key.pem").stat().st_mode) & 0o137


async def test_jwt() -> None:
    """Fetched alone on stdout, verified from stdin; no error repeats a token."""
    async with up(rules=_RULES) as running:
        token = (await running.sojourn("jwt", "fetch", "--audience", "orders")).out.strip()
        assert token.count(".") == 2
        good = await running.sojourn("jwt", "verify", "-", "--audience", "orders", "--json", stdin=token + "\n")
        told = json.loads(good.out)
        assert (told["spiffe_id"], told["claims"]["sub"], told["audience"]) == (_OWN, _OWN, ["orders"])
        forged = token[:-8] + "AAAAAAAA"
        for arguments in (
            (token, "--audience", "payments"),
            (forged, "--audience", "orders"),
            (token.replace(".", ""), "--audience", "orders"),
        ):
            said = sentence(await running.sojourn("jwt", "verify", *arguments), 1)
            assert not any(part in said for part in token.split("."))
        twice = await running.sojourn("jwt", "verify", token, token, "--audience", "orders")
        assert twice.code == 2
        assert token not in twice.err
        foreign = await running.sojourn("jwt", "fetch", "--audience", "orders", "--id", "spiffe://other.test/x")
        assert sentence(foreign, 1)
        assert (await running.sojourn("jwt", "fetch", "--audience", "orders", "--id", "orders")).code == 2


async def test_rule() -> None:
    """List shows every rule in force; explain says what a process gets, by which rule, and why not by the others."""
    async with up(rules=_RULES) as running:
        listed = json.loads((await running.sojourn("rule", "list", "--json")).out)
        assert [rule["name"] for rule in listed["rules"]] == ["sojourn-broker", "journey", "nobody"]
        assert "nobody" in (await running.sojourn("rule", "list")).out
        pid = ("--pid", str(os.getpid()))
        told = json.loads((await running.sojourn("rule", "explain", *pid, "--json")).out)
        assert [(one["rule"], one["spiffe_id"]) for one in told["identities"]] == [("journey", _OWN)]
        reasons = {one["rule"]: one["reason"] for one in told["unmatched"]}
        assert f"unix:uid:{os.getuid() + 1}" in reasons["nobody"]
        shown = await running.sojourn("rule", "explain", *pid)
        assert f"`nobody`: {reasons['nobody']}" in shown.out
        supposed = ("--node", "up", "--selector", f"unix:uid:{os.getuid() + 1}", "--json")
        told = json.loads((await running.sojourn("rule", "explain", *supposed)).out)
        assert [one["rule"] for one in told["identities"]] == ["nobody"]
        assert "no process" in sentence(await running.sojourn("rule", "explain", "--pid", str(2**22 + 1)), 1)
        for usage in ((), ("--pid", "0"), ("--pid", "1", "--node", "up")):
            assert (await running.sojourn("rule", "explain", *usage)).code == 2
        assert (await running.sojourn("svid", "fetch", "--json")).code == 0  # so that there is an instance
        draft = running.places.state.parent / "draft.yaml"
        draft.write_text(_RULES.replace("/journey", "/elsewhere"))
        meant = ("--as", str(running.places.rules))
        found = json.loads((await running.sojourn("rule", "diff", str(draft), *meant, "--json")).out)
        assert (found["changed"], found["added"], found["removed"]) == (["journey"], [], [])
        draft.write_text(_RULES.replace("/journey", "/task/1"))
        assert "reserved" in sentence(await running.sojourn("rule", "diff", str(draft), *meant), 1)
        assert "no setting names this file" in sentence(await running.sojourn("rule", "diff", str(draft)), 1)


async def test_token() -> None:
    """Printed once, or written to a new private file and not printed; an existing file is never touched."""
    async with up(rules=_RULES) as running:
        made = await running.sojourn("token", "create", "--node", "web-1", "--ttl", "2m")
        assert JoinToken.parse(made.out).id
        assert "web-1" in made.err
        path = running.places.state.parent / "web-1.token"
        written = await running.sojourn("token", "create", "--output", str(path), "--json")
        told = json.loads(written.out)
        assert "token" not in told
        assert JoinToken.parse(path.read_text()).id == told["id"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        kept = path.read_text()
        again = await running.sojourn("token", "create", "--output", str(path))
        assert str(path) in sentence(again, 1)
        assert path.read_text() == kept
        refused = await running.sojourn("token", "create", "--node", "../x", "--output", f"{path}-2")
        assert sentence(refused, 1)
        assert not Path(f"{path}-2").exists()
        for ttl in ("5", "0s", "25h"):
            assert (await running.sojourn("token", "create", "--ttl", ttl)).code == 2


async def test_node() -> None:
    """Listed, sent away, banned, and let back; an unknown one is no success."""
    async with up(rules=_RULES) as running:
        (own,) = json.loads((await running.sojourn("node", "list", "--json")).out)["nodes"]
        assert (own["state"], own["method"], own["observed"]) == ("admitted", "join_token", True)
        name = own["id"]
        assert name in (await running.sojourn("node", "list")).out
        assert "nothing was refused" in (await running.sojourn("node", "risks")).out
        assert json.loads((await running.sojourn("node", "risks", "--json")).out) == {"risks": []}
        for verb, state in (("evict", "evicted"), ("ban", "banned"), ("evict", "banned"), ("unban", "evicted")):
            told = await running.sojourn("node", verb, name, "--json")
            assert (told.code, json.loads(told.out)["state"]) == (0, state), told
        for verb in ("evict", "ban", "unban"):
            for stranger in ("stranger", "../x"):
                assert "there is no node" in sentence(await running.sojourn("node", verb, stranger), 1)


async def test_ca() -> None:
    """Show says who signs; rotate with --dry-run changes nothing, and without it does; a signing key is not tainted."""
    async with up(rules=_RULES) as running:
        shown = json.loads((await running.sojourn("ca", "show", "--json")).out)["authorities"]
        assert {(one["kind"], one["state"]) for one in shown} == {
            (kind, "active") for kind in ("root", "issuing", "jwt", "wit")
        }
        planned = await running.sojourn("ca", "rotate", "jwt", "--at-once", "--dry-run")
        assert (planned.code, "would be" in planned.out) == (0, True), planned
        rotated = json.loads((await running.sojourn("ca", "rotate", "jwt", "--at-once", "--json")).out)
        (old,) = [one["key_id"] for one in rotated["changes"] if one["after"] == "old"]
        assert old in {one["key_id"] for one in shown if one["kind"] == "jwt"}
        (root,) = [one["key_id"] for one in shown if one["kind"] == "root"]
        assert "rotate it first" in sentence(await running.sojourn("ca", "taint", root), 1)
        assert (await running.sojourn("ca", "taint", old)).code == 0
        assert old in (await running.sojourn("ca", "revoke", old)).out
        assert "lower-case hexadecimal" in sentence(await running.sojourn("ca", "taint", "nonsense"), 1)
        table = (await running.sojourn("ca", "show", "--all")).out
        assert "revoked" in table
