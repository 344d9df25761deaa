#!/usr/bin/env python3
"""kiln-admin against real servers: what an operator does to a fleet, and what is refused. Usage: test_admin.py BUILD"""

import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stack import Stack, run_cases  # noqa: E402

DAY_MS = 24 * 3600 * 1000


def shown(stack, *more):
    return json.loads(stack.admin("trust", "show", "--json", *more).stdout)


def changed(stack, *words):
    return json.loads(stack.admin("trust", *words, "--json", "--roots", stack.roots()).stdout)


def refused(stack, *words, because):
    done = stack.admin(*words, accept=(1,))
    assert because in done.stderr, f"{' '.join(map(str, words))}: {done.stderr}"


def one_root(stack, number):
    return str(stack.dir / "roots" / f"root-{number}")


def key_of(stack, name):
    """A new key's public half."""
    return stack.admin_offline("key", "new", stack.dir / name).stdout.strip()


def test_first_record_says_who_is_who(stack):
    record = shown(stack)
    assert record["version"] == 1 and record["generation"] == 1, record
    assert len(record["principals"]) == 10 and len(record["keys"]) == 2 and not record["revocations"], record
    agent = next(one for one in record["principals"] if one["name"] == "agent-1")
    assert (agent["role"], agent["tenant"], agent["pool"]) == ("agent", "red", ""), agent
    assert agent["record_key"] == (stack.role("agent-1") / "record.key.pub").read_text().strip()
    assert 29 * DAY_MS < record["expires_ms"] - time.time() * 1000 < 31 * DAY_MS, record
    reader = stack.admin_as("reader", "trust", "show")
    assert "verifier-2" in reader.stdout, "a reader may look"


def test_init_again_changes_nothing(stack):
    done = json.loads(stack.admin("init", "--json").stdout)
    assert done["topics"] == 11 and done["topics_made"] == 0 and done["trust_version"] == shown(stack)["version"], done


def test_init_refuses_other_partition_counts(stack):
    conf = stack.conf("operator")
    good = conf.read_text()
    try:
        conf.write_text(good.replace("\npartitions = 4", "\npartitions = 5"))
        refused(stack, "init", because="has 4 partitions, it must have 5")
    finally:
        conf.write_text(good)


def test_roles_may_not_administer(stack):
    for name in ("agent-1", "verifier-1", "executor-1", "reader"):
        done = stack.admin_as(name, "init", accept=(1,))
        assert "AccessDenied" in done.stderr, done.stderr
        done = stack.admin_as(name, "init", "--no-buckets", accept=(1,))
        assert "uthoriz" in done.stderr or "denied" in done.stderr, done.stderr
        done = stack.admin_as(name, "trust", "renew", "--roots", stack.roots(), accept=(1,))
        assert "AccessDenied" in done.stderr, f"{name}: {done.stderr}"


def test_revoke_and_undo(stack):
    before = shown(stack)["version"]
    after = changed(stack, "revoke", "executor", "executor-3")
    assert after["version"] == before + 1 and after["pushed"], after
    assert shown(stack)["revocations"] == [{"kind": "executor", "what": "executor-3", "since_ms": 0, "until_ms": 0}]
    assert json.loads(stack.admin("init", "--json").stdout)["rights_taken"] == 5, "its rights on Kafka go with it"
    changed(stack, "revoke", "action", "ab" * 32, "--since", "now")
    assert abs(shown(stack)["revocations"][1]["since_ms"] - time.time() * 1000) < 60000
    changed(stack, "revoke", "action", "ab" * 32, "--until", "now")
    assert shown(stack)["revocations"][1]["since_ms"] == 0
    assert abs(shown(stack)["revocations"][1]["until_ms"] - time.time() * 1000) < 60000
    changed(stack, "revoke", "executor", "executor-3", "--undo")
    changed(stack, "revoke", "action", "ab" * 32, "--undo")
    assert not shown(stack)["revocations"]
    assert json.loads(stack.admin("init", "--json").stdout)["rights_taken"] == 0
    roots = ("--roots", stack.roots())
    refused(stack, "trust", "revoke", "action", "abc", *roots, because="64 lower-case hex digits")
    refused(stack, "trust", "revoke", "king", "x", *roots, because="none of key, executor")
    refused(stack, "trust", "revoke", "executor", "../x", *roots, because="no name")
    refused(stack, "trust", "revoke", "executor", "executor-3", "--until", "now", *roots, because="cannot end")
    refused(stack, "trust", "revoke", "executor", "executor-3", "--undo", *roots, because="is not revoked")


def test_enrol_gives_topics_and_rights(stack):
    principals = stack.dir / "more"
    principals.write_text(f"agent-9 agent green - {key_of(stack, 'agent-9')}\n")
    changed(stack, "enrol", "--principals", str(principals))
    done = json.loads(stack.admin("init", "--json").stdout)
    assert done["topics"] == 12 and done["topics_made"] == 1, done
    principals.write_text("agent-9 agent - - " + "a" * 64 + "\n")
    refused(stack, "trust", "enrol", "--principals", principals, "--roots", stack.roots(), because="line 1: an agent has a tenant")


def test_rotate_keeps_the_old_key_for_a_while(stack):
    fresh = key_of(stack, "next-key")
    changed(stack, "rotate", "verifier-1", "--sign-key", fresh, "--overlap-days", "3")
    keys = {one["public_key"]: one["not_after_ms"] - time.time() * 1000 for one in shown(stack)["keys"] if one["principal"] == "verifier-1"}
    old = (stack.role("verifier-1") / "sign.key.pub").read_text().strip()
    assert set(keys) == {fresh, old}, keys
    assert 2.9 * DAY_MS < keys[old] < 3.1 * DAY_MS and keys[fresh] > 300 * DAY_MS, keys
    roots = ("--roots", stack.roots())
    refused(stack, "trust", "rotate", "verifier-1", "--sign-key", fresh, *roots, because="in the record already")
    refused(stack, "trust", "rotate", "agent-1", "--sign-key", "c" * 64, *roots, because="no verifier")
    refused(stack, "trust", "rotate", "nobody", "--sign-key", "c" * 64, *roots, because="not in the record")


def test_roots_sign_in_two_places(stack):
    file = stack.dir / "offline"
    before = shown(stack)
    refused(stack, "trust", "renew", "--roots", one_root(stack, 1), because="is signed by 1 known roots, 2 are needed")
    stack.admin("trust", "renew", "--next-generation", "--days", "7", "--roots", one_root(stack, 1), "--out", file)
    assert shown(stack) == before, "only a file was written"
    refused(stack, "trust", "push", file, because="is signed by 1 known roots, 2 are needed")
    stack.admin("trust", "sign", file, "--roots", one_root(stack, 1))  # again the same one
    refused(stack, "trust", "push", file, because="is signed by 1 known roots, 2 are needed")
    key_of(stack, "strange-root")
    stack.admin("trust", "sign", file, "--roots", stack.dir / "strange-root")
    refused(stack, "trust", "push", file, because="is signed by 1 known roots, 2 are needed")
    stack.admin("trust", "sign", file, "--roots", one_root(stack, 2))
    stack.admin("trust", "push", file)
    after = shown(stack)
    assert (after["version"], after["generation"]) == (before["version"] + 1, before["generation"] + 1), after
    refused(stack, "trust", "push", file, because="the vault holds version")
    changed(stack, "renew")
    refused(stack, "trust", "push", file, because="the vault holds version")  # an older one now
    forged = bytearray(file.read_bytes())
    forged[-20] ^= 1
    file.write_bytes(forged)
    refused(stack, "trust", "push", file, because="trust record")


def test_a_shadow_by_the_storage_admin_makes_room(stack):
    """Somebody with the storage's root key puts other bytes over the record: it is refused, and the next push goes over it."""
    good = stack.s3("operator").must("GET", "/kiln-vault/trust/record").body
    saved = stack.dir / "saved"
    saved.write_bytes(good)
    before = shown(stack)["version"]
    stack.s3("root").must("PUT", "/kiln-vault/trust/record", body=b"other bytes")
    refused(stack, "trust", "show", because="trust record")
    refused(stack, "trust", "renew", "--roots", stack.roots(), because="trust record")
    stack.admin("trust", "renew", "--in", saved, "--roots", stack.roots())
    assert shown(stack)["version"] == before + 1


def crate(directory, package, files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{package}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    path = directory / f"{package}.crate"
    path.write_bytes(data.getvalue())
    return hashlib.sha256(data.getvalue()).hexdigest()


def test_public_takes_only_listed_archives(stack):
    crates = stack.dir / "crates"
    crates.mkdir()
    sums = {name: crate(crates, name, {"Cargo.toml": name.encode(), "src/lib.rs": b""}) for name in ("one-1.0.0", "two-2.0.0", "bad-3.0.0")}
    lock = stack.dir / "Cargo.lock"
    lock.write_text(f'[[package]]\nname = "one"\nversion = "1.0.0"\nchecksum = "{sums["one-1.0.0"]}"\n\n'
                    f'[[package]]\nname = "bad"\nversion = "3.0.0"\nchecksum = "{"0" * 64}"\n')
    plain = stack.dir / "sums"
    plain.write_text(f"{sums['two-2.0.0']}  two-2.0.0.crate\n")

    def public(*words):
        return json.loads(stack.admin("public", *words, "--json", "--roots", stack.roots()).stdout)
    assert public(crates, "--checksums", lock) == {"version": 1, "packages": 1, "added": 1, "known": 0, "refused": 2}
    assert public(crates, "--checksums", f"{lock},{plain}") == {"version": 2, "packages": 2, "added": 1, "known": 1, "refused": 1}
    listed = json.loads(stack.admin("public", "--show", "--json").stdout)["packages"]
    assert {one["package"]: one["archive"] for one in listed} == {name: sums[name] for name in ("one-1.0.0", "two-2.0.0")}, listed
    assert not list(pathlib.Path("/tmp").glob("kiln-public-*/unpacked/one-1.0.0")), "nothing unpacked is left"


def test_keys_are_private_and_never_replaced(stack):
    stack.admin_offline("key", "new", stack.dir / "a-key")
    assert (stack.dir / "a-key").stat().st_mode & 0o777 == 0o600
    before = (stack.dir / "a-key").read_bytes()
    done = stack.admin_offline("key", "new", stack.dir / "a-key", accept=(1,))
    assert "is there already" in done.stderr and (stack.dir / "a-key").read_bytes() == before
    os.chmod(stack.dir / "roots" / "root-1", 0o644)
    try:
        refused(stack, "trust", "renew", "--roots", stack.roots(), because="root-1")
    finally:
        os.chmod(stack.dir / "roots" / "root-1", 0o600)


def test_the_storage_holds_what_a_verifier_needs(stack):
    assert "honours" in stack.admin_as("verifier-1", "probe").stdout


def test_an_expired_certificate_opens_nothing(stack):
    role, authority, place = stack.role("executor-1"), stack.dir / "tls", stack.dir / "expired"
    place.mkdir()
    openssl = ["openssl", "x509", "-req", "-in", place / "request", "-CA", authority / "ca.crt", "-CAkey", authority / "ca.key", "-set_serial", "1"]
    subprocess.run(["openssl", "req", "-new", "-key", role / "tls.key", "-subj", "/CN=executor-1", "-out", place / "request"], check=True)
    for days, opens in (("1", True), ("-1", False)):
        subprocess.run([*openssl, "-days", days, "-out", place / "tls.crt"], check=True, capture_output=True)
        done = subprocess.run(["kcat", "-L", "-m", "5", "-b", stack.env()["KILN_STACK_BROKERS"], "-X", "security.protocol=ssl",
                               "-X", f"ssl.ca.location={role / 'ca.crt'}", "-X", f"ssl.certificate.location={place / 'tls.crt'}",
                               "-X", f"ssl.key.location={role / 'tls.key'}"], capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0 and "kiln.candidates" in done.stdout) == opens, (days, done)


def test_an_older_record_than_told_is_not_gone_on_from(stack):
    version, conf = shown(stack)["version"], stack.dir / "told.conf"
    for least, code in ((version, 0), (version + 2, 1)):
        conf.write_text(stack.conf("operator").read_text().replace("[fleet]\n", f"[fleet]\ntrust_version = {least}\n", 1))
        done = stack.admin_offline("trust", "renew", "--roots", stack.roots(), "--config", conf, accept=(code,))
    assert f"fleet.trust_version is {version + 2}" in done.stderr and shown(stack)["version"] == version + 1, done


def test_kiln_admin_is_run_by_kiln(stack):
    place = stack.dir / "bin"
    place.mkdir()
    kiln = next((stack.build / name for name in ("producer/kiln", "bin/kiln") if (stack.build / name).is_file()))
    shutil.copy(kiln, place / "kiln")
    alone = subprocess.run([place / "kiln", "admin", "trust", "show"], capture_output=True, text=True)
    assert alone.returncode == 1 and "kiln-admin" in alone.stderr, alone
    shutil.copy(stack.program(), place / "kiln-admin")
    done = subprocess.run([place / "kiln", "admin", "trust", "show", "--config", stack.conf("operator"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["version"] > 1, done
    done = subprocess.run([place / "kiln", "admin", "init", "--config", stack.conf("operator"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["topics_made"] == 0, done
    done = subprocess.run([place / "kiln", "toolchain", "publish", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--sysroot" in done.stdout, done


if __name__ == "__main__":
    with Stack(sys.argv[1]) as made:
        code = run_cases(sys.modules["__main__"], made)
    sys.exit(code)
