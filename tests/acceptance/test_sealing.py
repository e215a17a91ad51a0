"""Seals: what was rewritten, cut off or put in place of another is found, and nobody else's seal counts."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scratch import Said, Scratch, shell

from parallel_agents.eventstore.links import event_hash
from parallel_agents.seal_keys import fingerprint


@pytest.fixture(scope="module")
def with_a_seal(make_project: Callable[[str], Scratch]) -> Scratch:
    """A project with a run, and a seal of it in ``seal.json``; a second run came after."""
    cli = make_project("project")
    cli.quick("run", cli.plan(shell("a", "echo 1"), workspace="none"))
    cli.quick("seal", "--out", "seal.json")
    cli.quick("run", cli.plan(shell("b", "echo 2"), workspace="none"))
    return cli.keep()


@pytest.fixture
def sealed(with_a_seal: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_a_seal.anew()


def change(cli: Scratch, *statements: str) -> None:
    """Change the store behind our back."""
    with closing(sqlite3.connect(cli.store)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def rewrite(store: Path, seq: int, **values: Any) -> None:
    """Change an event, and work out every hash from there on, as somebody would who knows how."""
    with closing(sqlite3.connect(store)) as connection, connection:
        for name, value in values.items():
            connection.execute(f"UPDATE events SET {name} = ? WHERE seq = ?", (value, seq))
        query = "SELECT seq, run_id, version, type, at, actor, body FROM events WHERE seq >= ? ORDER BY seq"
        found = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq - 1,)).fetchone()
        head = found[0] if found else bytes(32)
        for row in connection.execute(query, (seq,)).fetchall():
            digest = sha256(row[6].encode()).digest()
            link = event_hash(head, *row[:6], digest)
            words = "UPDATE events SET body_digest = ?, prev_hash = ?, hash = ? WHERE seq = ?"
            connection.execute(words, (digest, head, link, row[0]))
            head = link


def of_seal(cli: Scratch, *more: str, code: int = 0) -> dict[str, Any]:
    """What is said of the one seal."""
    said = cli.quick("verify", "--json", "--against", "seal.json", *more, code=code)
    (found,) = said.data["seals"]
    assert said.data["ok"] == (code == 0) == found["ok"]
    if code:
        assert said.complaint["code"] == "chain_broken"
    return dict(found)


def test_a_log_that_has_grown_fits_its_seal(sealed: Scratch) -> None:
    """It says what is proved, by whom, and what is not."""
    found = of_seal(sealed)
    seal = json.loads((sealed.root / "seal.json").read_text())
    assert (found["seq"], found["head"], found["code"], found["what"]) == (seal["seq"], seal["head"], "", "")
    assert found["trusted_by"] == str(sealed.root / "home/.config/parallel-agents/keys/seal.pub")
    said = sealed.quick("verify", "--against", "seal.json").out
    since = sealed.event_count() - seal["seq"]
    assert f"events 1 to {seal['seq']} are those of {seal['at']}" in said
    assert f"the {since} since are proved by the chain alone" in said
    deep = sealed.quick("verify", "--deep", "--against", "seal.json", "--json").data
    assert (deep["seals"][0]["ok"], deep["findings"]) == (True, [])


def test_a_history_that_was_rewritten_as_a_whole_is_found_by_its_seal_alone(sealed: Scratch) -> None:
    """The chain holds; where an older seal still fits, the change lies behind it."""
    rewrite(sealed.store, 4, actor="somebody")
    assert sealed.quick("verify").code == 0
    found = of_seal(sealed, code=8)
    assert (found["code"], f"between events 1 and {found['seq']}" in found["what"]) == ("rewritten", True)
    assert found["what"] in sealed.quick("verify", "--against", "seal.json", code=8).err
    sealed.quick("seal", "--out", "second.json")
    rewrite(sealed.store, sealed.event_count() - 1, actor="somebody")
    sealed.quick("seal", "--out", "third.json")
    (first, second, third) = sealed.quick(
        "verify", "--json", *(f"--against={name}.json" for name in ("seal", "second", "third")), code=8
    ).data["seals"]
    assert [one["code"] for one in (first, second, third)] == ["rewritten", "rewritten", ""]
    sealed.quick("verify", "--deep", "--against", "second.json", code=8)


def test_where_an_older_seal_still_fits_the_change_lies_behind_it(sealed: Scratch) -> None:
    """So seals made now and then say where to look."""
    sealed.quick("seal", "--out", "second.json")
    end, since = sealed.event_count(), of_seal(sealed)["seq"]
    rewrite(sealed.store, end - 1, actor="somebody")
    said = sealed.quick("verify", "--against", "seal.json", "--against", "second.json", code=8)
    assert f"between events {since + 1} and {end}" in said.err
    assert f"events 1 to {since} are those of" in said.out


def test_a_log_whose_end_was_cut_off_is_found(sealed: Scratch) -> None:
    """With what is gone."""
    seq = of_seal(sealed)["seq"]
    change(sealed, f"DELETE FROM events WHERE seq > {seq - 2}")
    assert sealed.quick("verify").code == 0
    found = of_seal(sealed, code=8)
    assert (found["code"], f"events {seq - 1} to {seq}" in found["what"]) == ("shorter", True)


def test_a_seal_of_another_store_is_told(sealed: Scratch, tmp_path: Path) -> None:
    """So is a store that was rewritten from its first event on."""
    rewrite(sealed.store, 1, actor="somebody")
    assert of_seal(sealed, code=8)["code"] == "other_store"


def test_a_seal_says_nothing_of_a_chain_that_does_not_hold(sealed: Scratch) -> None:
    """But a change behind it leaves what it proves."""
    change(sealed, f"UPDATE events SET body = '[]' WHERE seq = {sealed.event_count()}")
    said = sealed.quick("verify", "--json", "--against", "seal.json", code=8)
    assert (said.data["ok"], said.data["seals"][0]["ok"]) == (False, True)
    change(sealed, "UPDATE events SET body = '[]' WHERE seq = 3")
    assert of_seal(sealed, code=8)["code"] == "chain"


@pytest.mark.parametrize(
    "field", ["seq", "head", "store", "at", "release", "events", "public_key", "signature", "more"]
)
def test_a_seal_that_was_changed_does_not_count(sealed: Scratch, field: str) -> None:
    """Any of its fields, or one more."""
    path = sealed.root / "seal.json"
    seal = json.loads(path.read_text())
    other = Ed25519PrivateKey.generate()
    line = other.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
    values = {"seq": 1, "events": 1, "head": seal["store"], "store": seal["head"], "at": "2026-01-01T00:00:00.000000Z"}
    texts = {"release": "9.9.9", "more": "x", "public_key": line, "signature": "A" * 86 + "=="}
    path.write_text(json.dumps({**seal, field: {**values, **texts}[field]}))
    assert of_seal(sealed, code=8)["code"] == "signature"


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", "\0", "x" * 70_000, '{"parallel_agents_seal": 1}', '{"parallel_agents_seal": 2}'],
)
def test_what_is_no_seal_is_wrong_usage(sealed: Scratch, content: str) -> None:
    """Nothing is verified then."""
    (sealed.root / "seal.json").write_text(content)
    said = sealed.quick("verify", "--against", "seal.json", code=2)
    assert (said.out, "seal.json" in said.err) == ("", True)
    assert "cannot be read" in sealed.quick("verify", "--against", "nowhere.json", code=2).err


def a_key(path: Path, key: Any = None, password: bytes | None = None, ssh: bool = False) -> str:
    """Write a private key; its fingerprint."""
    key = key or Ed25519PrivateKey.generate()
    how = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    kind = form.PrivateFormat.OpenSSH if ssh else form.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(form.Encoding.PEM, kind, how))
    path.chmod(0o600)
    return fingerprint(key.public_key().public_bytes_raw()) if isinstance(key, Ed25519PrivateKey) else ""


@pytest.mark.parametrize("ssh", [False, True])
def test_another_key_counts_only_where_somebody_vouches_for_it(sealed: Scratch, ssh: bool) -> None:
    """By its fingerprint or its public half; then the own key does not count any more."""
    mark = a_key(sealed.root / "key", ssh=ssh)
    said = sealed.quick("seal", "--out", "seal.json", "--yes", "--key", "key", "--json")
    assert (said.data["fingerprint"], mark in said.err) == (mark, True)
    found = of_seal(sealed, code=8)
    assert (found["code"], mark in found["what"], found["trusted_by"]) == ("unknown_key", True, None)
    assert of_seal(sealed, "--trust-key", mark)["trusted_by"] == mark
    key = form.load_ssh_public_key(said.data["public_key"].encode())
    for kind, shape in (
        (form.Encoding.OpenSSH, form.PublicFormat.OpenSSH),
        (form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo),
    ):
        (sealed.root / "key.pub").write_bytes(key.public_bytes(kind, shape))
        assert of_seal(sealed, "--trust-key", "key.pub")["trusted_by"] == "key.pub"
    sealed.quick("seal", "--out", "own.json")
    assert "nobody has vouched" in sealed.quick("verify", "--against", "own.json", "--trust-key", mark, code=8).err


def test_the_fingerprint_is_the_one_that_ssh_tells(sealed: Scratch) -> None:
    """So that a key is known by one name everywhere."""
    folder = sealed.root / "home/.config/parallel-agents/keys"
    try:
        told = subprocess.run(["ssh-keygen", "-lf", folder / "seal.pub"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("there is no ssh-keygen here")
    assert told.stdout.split()[1] == of_seal(sealed)["fingerprint"]


def test_the_own_key_is_made_once_and_nobody_else_can_read_it(cli: Scratch) -> None:
    """In the user's configuration, outside of the project; the seal itself is on stdout, alone."""
    cli.quick("run", cli.plan(shell("a", "true"), workspace="none"))
    first = cli.quick("seal")
    folder = cli.root / "home/.config/parallel-agents/keys"
    assert "made a key" in first.err
    assert sorted(path.name for path in folder.iterdir()) == ["seal.pem", "seal.pub"]
    assert ((folder / "seal.pem").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    second = cli.quick("seal")
    assert "made a key" not in second.err
    assert [first.data[name] for name in ("public_key", "head", "seq")] == [
        second.data[name] for name in ("public_key", "head", "seq")
    ]
    elsewhere = cli.quick("seal", env={"XDG_CONFIG_HOME": str(cli.root / "other")})
    assert (cli.root / "other/parallel-agents/keys/seal.pem").exists()
    assert elsewhere.data["public_key"] != first.data["public_key"]
    assert cli.quick("seal", code=2, env={"HOME": None}).err.count("HOME") >= 1
    key = str(folder / "seal.pem")
    assert cli.quick("seal", "--key", key, env={"HOME": None}).data["public_key"] == first.data["public_key"]


def refused(cli: Scratch, *words: str) -> Said:
    """A seal that is not made: wrong usage, nothing on stdout, no file."""
    said = cli.quick("seal", *words, code=2)
    assert said.out == ""
    return said


def test_keys_that_cannot_be_used_are_refused_by_name(sealed: Scratch) -> None:
    """Before anything is written."""
    key = sealed.root / "key"
    assert "there is no key at key" in refused(sealed, "--key", "key").err
    a_key(key, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    assert "no ed25519 key" in refused(sealed, "--key", "key").err
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    assert "holds no private key" in refused(sealed, "--key", "key").err
    a_key(key, password=b"horse")
    assert "passphrase" in refused(sealed, "--key", "key").err
    a_key(key)
    key.chmod(0o644)
    assert "others can read" in refused(sealed, "--key", "key").err
    a_key(sealed.store.parent / "key")
    assert "beside the log" in refused(sealed, "--key", ".parallel-agents/key").err
    assert "exists already" in refused(sealed, "--out", "seal.json").err
    assert "cannot be written" in refused(sealed, "--out", "nowhere/seal.json").err
    assert (
        "no public ed25519" in sealed.quick("verify", "--against", "seal.json", "--trust-key", "plan.json", code=2).err
    )
    assert "--against" in sealed.quick("verify", "--trust-key", "x", code=2).err


def test_what_is_not_as_it_was_written_is_not_sealed(sealed: Scratch) -> None:
    """Or a seal would vouch for it. What is sealed beside the log is told to be in the wrong place."""
    assert "beside the log" in sealed.quick("seal", "--out", ".parallel-agents/seal.json").err
    change(sealed, "UPDATE events SET body = '[]' WHERE seq = 3")
    assert sealed.quick("seal", code=8).out == ""


def test_a_store_that_was_brought_back_fits_the_seals_of_the_first(sealed: Scratch) -> None:
    """It is the same history, in another folder."""
    sealed.quick("backup", "saved.tar.gz")
    (sealed.root / "copy/.git").mkdir(parents=True)
    sealed.quick("restore", "saved.tar.gz", "--into", "copy")
    said = sealed.quick("verify", "--against", "../seal.json", cwd=sealed.root / "copy")
    assert "are those of" in said.out


def test_no_other_command_waits_for_the_library_that_signs(cli: Scratch) -> None:
    """It is there only where something is sealed."""
    code = (
        "import sys\nfrom parallel_agents.cli import main\n"
        "for words in (['--help'], ['status'], ['verify'], ['verify', '--deep']):\n    main.exit_code_of(words)\n"
        "print('cryptography' in sys.modules, file=sys.stderr)"
    )
    cli.quick("run", cli.plan(shell("a", "true"), workspace="none"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cli.root, env=cli.environment, capture_output=True, text=True
    )
    assert done.stderr.strip().endswith("False"), done.stderr
