"""What a fleet believes, and for how long: agreement of executors, revocation, generations, lifetimes, locks; on real Kafka and MinIO.

Functions case_* always run, full_* with KILN_FULL in the environment or when they are named."""

import base64
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import time

from cases_builds import a_fleet, all_hits, build, small_crates, status
from kilntest import REAL, artifacts, assert_same_artifacts, wait_for
from read_topic import Reader

HERE = pathlib.Path(__file__).resolve().parent
QUICK = "\n[fleet]\ntrust_refresh = 500ms\n"  # how soon each process learns what operators have revoked
LIAR = "executor-3"


def records(fleet, topic, name="reader"):
    """All that lies on a topic, decoded with what schemas/ says."""
    role, env = fleet.stack.role(name), fleet.stack.env()
    done = subprocess.run(["kcat", "-q", "-C", "-e", "-b", env["KILN_STACK_BROKERS"], "-t", topic, "-o", "beginning", "-f", "%R%s",
                           "-X", "security.protocol=ssl", "-X", f"ssl.ca.location={role / 'ca.crt'}",
                           "-X", f"ssl.certificate.location={role / 'tls.crt'}", "-X", f"ssl.key.location={role / 'tls.key'}"],
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    reader, text, found = Reader(), done.stdout, []
    while text:
        size = int.from_bytes(text[:4], "big", signed=True)
        if size > 0:
            found.append(reader.decode(text[4:4 + size])[1])
        text = text[4 + max(size, 0):]
    return found


def events(fleet, name):
    return [record for record in records(fleet, "kiln.events") if record["name"] == name]


def stored(fleet):
    """What the ledger says was signed: action -> the entries of it, oldest first."""
    found = {}
    for entry in records(fleet, "kiln.ledger"):
        if entry["event"] == "stored":
            found.setdefault(entry["action_digest"], []).append(entry)
    return found


def liar(world, fleet):
    """An executor whose kiln-run flips a byte in each result; the file that tells what it has flipped."""
    libexec = world.path("lying-bin")
    libexec.mkdir()
    shutil.copy2(world.program("kiln-run"), libexec / "kiln-run.honest")
    shutil.copy2(world.program("libkiln-observe.so"), libexec)
    shutil.copy2(HERE / "lying_run.py", libexec / "kiln-run")
    return fleet.executor(LIAR, libexec=libexec, more=QUICK), libexec / "lies"


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def case_agreement_keeps_a_liar_out(world):
    """One of three executors flips a byte in each of its results, two must agree: nothing of the liar's is signed, it is named,
    and the artifacts are those of one honest machine."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK + "agreement_tenant = 2\n")
        fleet.executor("executor-1", more=QUICK)
        fleet.executor("executor-2", more=QUICK)
        _, lies = liar(world, fleet)
        agent = fleet.agent("agent-1", QUICK)
        delta = build(world, world.copy_project(REAL / "workspace", "one"), agent, "target")
        print(f"  agreed: {delta} {delta.seconds:.2f} s, {len(lines(lies))} lies")
        assert delta.executions == delta.misses == delta.requests > 0 and delta.local == 0 and delta.errors == 0, str(delta)
        assert lines(lies), "the liar was never asked"
        build(world, world.copy_project(REAL / "workspace", "two"), world.agent("embedded"), "target-embedded")
        assert_same_artifacts(artifacts(world.path("target")), artifacts(world.path("target-embedded")))
        for entries in stored(fleet).values():
            for entry in entries:
                assert LIAR.encode() not in entry["envelope"], entry
                assert entry["envelope"].count(b"executor-") == 2 and b"agreement=2" in entry["envelope"], entry
        named = [event for event in events(fleet, "divergence") if "dissents" in event["detail"]]
        print(f"  {named[:1]}")
        assert named and all(event["subject"] == LIAR and event["severity"] == "alert" for event in named), named
        assert all("pool west" in event["detail"] for event in named), named


def differing(one, other):
    """Names whose bytes differ between two target directories of the same project."""
    assert set(one) == set(other) and one, (one, other)
    return {name for name in one if one[name] != other[name] and "/deps/" in name and name.endswith(".rlib")}


def trust(fleet, *words):
    """Changes the trust record; its processes know within their refresh."""
    fleet.stack.admin("trust", *words, "--roots", fleet.stack.roots())


def known_to_all(fleet, *agents):
    """Waits until the newest trust record is in force in the members and in these agents."""
    version = json.loads(fleet.stack.admin("trust", "show", "--json").stdout)["version"]

    def known():
        return (all(status(agent)["trust_version"] == version for agent in agents)
                and all(member.says(rf"event=trust_record version={version} ") for member in fleet.members if member.runs()))
    wait_for(known, 15, f"all know version {version} of the trust record")


def case_a_revoked_executor_is_undone(world):
    """Without agreement a liar's results are served; the ledger tells which they are, and revoking it makes each a miss at once,
    also in the local cache of an agent, and honest executors make it again."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        for name in ("executor-1", "executor-2"):
            fleet.executor(name, slots=1, more=QUICK)
        _, lies = liar(world, fleet)
        agent = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 16)
        bad = build(world, project, agent, "target-bad")
        print(f"  {bad}, {len(lines(lies))} lies")
        assert bad.executions == 16 and bad.local == 0 and 0 < len(lines(lies)) < 16, str(bad)
        all_hits(build(world, project, agent, "target-bad-again"))
        attested = {action for action, entries in stored(fleet).items() if LIAR.encode() in entries[0]["envelope"]}
        assert len(attested) == len(lines(lies)), (attested, lines(lies))
        trust(fleet, "revoke", "executor", LIAR)
        known_to_all(fleet, agent)
        good = build(world, project, agent, "target-good")
        print(f"  revoked: {good} {good.seconds:.2f} s")
        assert good.executions == good.misses == len(attested) and good.local == 0 and good.corrupt == 0, str(good)
        all_hits(build(world, project, agent, "target-again"))
        second = fleet.agent("agent-2", QUICK)
        all_hits(build(world, project, second, "target-second"))
        build(world, project, world.agent("embedded"), "target-embedded")
        right = artifacts(world.path("target-embedded"))
        for target in (world.path("target-good"), world.path("target-again"), world.path("target-second")):
            assert_same_artifacts(artifacts(target), right)
        spoilt = differing(artifacts(world.path("target-bad")), right)
        assert len(spoilt) == len(attested), (spoilt, attested)
        assert [event["subject"] for event in events(fleet, "executor_revoked")] == [LIAR]
        remade = {action for action, entries in stored(fleet).items() if len(entries) == 2 and LIAR.encode() not in entries[1]["envelope"]}
        assert remade == attested, (remade, attested)


def key_id(fleet, name):
    keys = json.loads(fleet.stack.admin("trust", "show", "--json").stdout)["keys"]
    return next(key["id"] for key in keys if key["principal"] == name)


def toolchain_parts(fleet, agent):
    """The digests of the parts that are published, by the names of their objects."""
    listing = fleet.stack.s3("root").request("GET", "/kiln-vault", query={"list-type": "2", "prefix": "toolchain/"})
    return sorted({part for part in re.findall(r"<Key>toolchain/[^<]*?([0-9a-f]{64})", listing.body.decode())})


def case_what_is_revoked_is_made_again(world):
    """An action, a verifier's key, a toolchain: each revocation makes misses, nothing is stuck on the locked name, and what may be
    made again is made once. What is revoked for good is compiled locally with its reason and is never executed."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        fleet.executor(more=QUICK)
        agent = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 4)
        first = build(world, project, agent, "target")
        assert first.executions == 4 and first.local == 0, str(first)
        action = sorted(stored(fleet))[0].hex()

        trust(fleet, "revoke", "action", action, "--until", "now")
        known_to_all(fleet, agent)
        again = build(world, project, agent, "target-action")
        print(f"  action: {again}")
        assert again.executions == 1 and again.hits == 3 and again.local == 0, str(again)
        all_hits(build(world, project, agent, "target-action-2"))
        trust(fleet, "revoke", "action", action)
        known_to_all(fleet, agent)
        gone = build(world, project, agent, "target-gone")
        print(f"  action for good: {gone}")
        assert gone.executions == 0 and gone.hits == 3 and gone.reasons == {"revoked_action": 1}, str(gone)
        assert len(stored(fleet)[bytes.fromhex(action)]) == 2
        trust(fleet, "revoke", "action", action, "--undo")
        known_to_all(fleet, agent)
        all_hits(build(world, project, agent, "target-undone"))

        trust(fleet, "revoke", "key", key_id(fleet, "verifier-1"))
        known_to_all(fleet, agent)
        unsigned = build(world, project, agent, "target-unsigned")
        print(f"  key: {unsigned}")
        assert unsigned.executions == 0 and unsigned.hits == 0 and unsigned.reasons == {"trust_signer": 4}, str(unsigned)
        fleet.members[0].end()
        fleet.verifier("verifier-2", more=QUICK)
        wait_for(lambda: fleet.members[-1].says("event=serving"), 20, "the other verifier")
        resigned = build(world, project, agent, "target-resigned")
        print(f"  other verifier: {resigned}")
        assert resigned.executions == 4 and resigned.local == 0, str(resigned)
        all_hits(build(world, project, agent, "target-resigned-2"))

        part = toolchain_parts(fleet, agent)[0]
        trust(fleet, "revoke", "toolchain", part)
        known_to_all(fleet, agent)
        without = build(world, project, agent, "target-without")
        print(f"  toolchain: {without}")
        assert without.executions == 0 and without.hits == 0 and without.reasons == {"revoked_toolchain": 4}, str(without)
        trust(fleet, "revoke", "toolchain", part, "--until", "now")
        known_to_all(fleet, agent)
        with_it = build(world, project, agent, "target-with")
        assert with_it.executions == 4 and with_it.local == 0, str(with_it)
        all_hits(build(world, project, agent, "target-with-2"))
        for target in ("action", "resigned", "with-2"):
            assert_same_artifacts(artifacts(world.path("target")), artifacts(world.path(f"target-{target}")))


def case_generations_and_a_frozen_record(world):
    """The next generation carries what is used over without an execution; after two that passed unused it is made again. A trust
    record that is over stops signing and is a named reason; renewed, all goes on without a restart."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        fleet.executor(more=QUICK)
        agent = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 4)
        first = build(world, project, agent, "target")
        assert first.executions == 4, str(first)
        trust(fleet, "renew", "--next-generation")
        known_to_all(fleet, agent)
        carried = build(world, project, agent, "target-carried")
        print(f"  next generation: {carried}")
        assert carried.executions == 0 and carried.local == 0 and carried.misses == 4, str(carried)
        assert [e["event"] for e in records(fleet, "kiln.ledger")].count("carried") == 4
        all_hits(build(world, project, agent, "target-carried-2"))
        for _ in range(2):
            trust(fleet, "renew", "--next-generation")
        known_to_all(fleet, agent)
        faded = build(world, project, agent, "target-faded")
        assert faded.executions == 4 and faded.local == 0, str(faded)
        all_hits(build(world, project, agent, "target-faded-2"))
        assert_same_artifacts(artifacts(world.path("target")), artifacts(world.path("target-faded-2")))


def sign_by_root(file, text, scratch):
    """The key id and signature of a root, by OpenSSL; the file holds the private key in hex."""
    key, text_file, signature = (scratch / name for name in ("root.der", "text", "signature"))
    key.write_bytes(bytes.fromhex("302e020100300506032b657004220420" + file.read_text().strip()))
    text_file.write_bytes(text)
    subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-in", text_file, "-inkey", key, "-keyform", "DER", "-out", signature],
                   check=True)
    public = bytes.fromhex(file.with_name(file.name + ".pub").read_text().strip())
    return hashlib.sha256(public).digest() + signature.read_bytes()


def put_short_lived(world, fleet, seconds):
    """The trust record's next version, good for so many seconds only: what is in force when operators stop renewing."""
    path, s3 = "/kiln-vault/trust/record", fleet.stack.s3("operator")
    old = s3.must("GET", path).body
    core = bytearray(old[old.index(b"kiln-trust-1\0"):])
    version, now = int.from_bytes(core[13:21], "big"), int(time.time() * 1000)
    core[13:37] = b"".join(number.to_bytes(8, "big") for number in (version + 1, now, now + seconds * 1000))
    signatures = sorted(sign_by_root(fleet.stack.dir / "roots" / name, bytes(core), world.root) for name in ("root-1", "root-2"))
    envelope = b"kiln-trust-signed-1\0" + (2).to_bytes(4, "big") + b"".join(signatures) + len(core).to_bytes(4, "big") + core
    put_over(s3, path, envelope)


def put_over(s3, path, body):
    s3.must("PUT", path, headers={"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}, body=body)


def case_a_rolled_back_record_is_refused(world):
    """The storage's root user puts an older trust record over the newest, which revokes an executor. Who has seen the newest keeps to
    it, also after a restart. Who has seen none believes the older one, unless its configuration knows better."""
    path = "/kiln-vault/trust/record"
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        fleet.executor(more=QUICK)
        agent = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 2)
        assert build(world, project, agent, "target").executions == 2
        root = fleet.stack.s3("root")
        old = root.must("GET", path).body
        trust(fleet, "revoke", "executor", LIAR)
        known_to_all(fleet, agent)
        newest, version = root.must("GET", path).body, status(agent)["trust_version"]
        put_over(root, path, old)
        wait_for(lambda: events(fleet, "trust_rolled_back"), 15, "the verifier says so")
        assert [event["subject"] for event in events(fleet, "trust_rolled_back")] == ["verifier-1"]
        for member in fleet.members:
            member.end()
            member.start()
        agent.restart()
        wait_for(lambda: len(fleet.members[0].says("event=serving")) == 2, 20, "the verifier serves again")
        kept = build(world, small_crates(world, 2, "kept", salt=1), agent, "target-kept")
        print(f"  rolled back: {kept}")
        assert kept.executions == 2 and kept.local == 0 and status(agent)["trust_version"] == version, str(kept)
        all_hits(build(world, project, agent, "target-again"))
        assert all(len(member.says(rf"event=trust_record version={version - 1} ")) == 1 for member in fleet.members)  # when it was new
        fresh = fleet.agent("agent-2", QUICK)
        assert status(fresh)["trust_version"] == version - 1 and status(fresh)["trust_valid"]
        fresh.stop()
        told = fleet.agent("agent-2", QUICK + f"trust_version = {version}\n", dir="told")
        refused = build(world, project, told, "target-told")
        print(f"  told of version {version}: {refused}")
        assert refused.hits == refused.executions == 0 and refused.reasons == {"trust_rolled_back": 2}, str(refused)
        put_over(root, path, newest)
        wait_for(lambda: status(told)["trust_valid"], 15, "the newest is in force")
        all_hits(build(world, project, told, "target-told-2"))


def case_a_frozen_record_stops_signing(world):
    """A trust record that nobody renews: nothing is signed any more, units are compiled locally with that reason. Renewed, the same
    processes hit again and sign again."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        fleet.executor(more=QUICK)
        agent = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 3)
        assert build(world, project, agent, "target").executions == 3
        signed = len(stored(fleet))
        put_short_lived(world, fleet, 3)
        known = fleet.members[0]
        wait_for(lambda: known.says("event=trust_expired"), 15, "the verifier's record is over")
        wait_for(lambda: not status(agent)["trust_valid"], 15, "the agent's record is over")
        for name, crates in (("old", project), ("new", small_crates(world, 2, "new", salt=1))):
            frozen = build(world, crates, agent, f"target-frozen-{name}")
            print(f"  frozen: {frozen}")
            assert frozen.hits == frozen.executions == 0 and set(frozen.reasons) == {"trust_expired"}, str(frozen)
        assert len(stored(fleet)) == signed
        trust(fleet, "renew")
        known_to_all(fleet, agent)
        all_hits(build(world, project, agent, "target-renewed"))
        again = build(world, world.path("new"), agent, "target-new")
        assert again.executions == 2 and again.local == 0, str(again)


def case_a_built_result_is_locked(world):
    """The storage's own root user can neither delete nor shorten the version that a result names; what it puts over the pointer
    costs nobody anything but a repair. A bucket without locks is no vault: the verifier says so and ends."""
    with a_fleet(world) as fleet:
        fleet.verifier(more=QUICK)
        fleet.executor(more=QUICK)
        first = fleet.agent("agent-1", QUICK)
        project = small_crates(world, 2)
        assert build(world, project, first, "target").executions == 2
        root = fleet.stack.s3("root")
        for prefix in ("ac/red/", "cas/red/"):
            listing = root.must("GET", "/kiln-vault", {"versions": "", "prefix": prefix}).body.decode()
            found = re.findall(r"<Key>([^<]+)</Key>.*?<VersionId>([^<]+)</VersionId>", listing)
            assert len(found) == 2, listing
            for key, version in found:
                path, pin = f"/kiln-vault/{key}", {"versionId": version}
                before = root.must("GET", path, pin)
                until = before.headers["x-amz-object-lock-retain-until-date"]
                bypass = {"x-amz-bypass-governance-retention": "true"}
                end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
                early = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{end}</RetainUntilDate></Retention>".encode()
                sum_ = {"content-md5": base64.b64encode(hashlib.md5(early).digest()).decode()}
                assert root.request("DELETE", path, pin, bypass).status >= 400
                assert end < until, (end, until)
                assert root.request("PUT", path, {"retention": "", **pin}, {**sum_, **bypass}, early).status >= 400
                root.must("PUT", path, body=b"something else")
                after = root.must("GET", path, pin)
                assert after.body == before.body and after.headers["x-amz-object-lock-retain-until-date"] == until
        second = fleet.agent("agent-2", QUICK)
        delta = build(world, project, second, "target-second")
        print(f"  shadowed: {delta}")
        assert delta.executions == 0 and delta.local == 0, str(delta)
        assert_same_artifacts(artifacts(world.path("target")), artifacts(world.path("target-second")))
        for bucket in ("quarantine", "inputs", "vault"):
            root.must("PUT", f"/bare-{bucket}")
        conf = fleet.stack.conf("verifier-2")
        text = re.sub(r"bucket_prefix = \S+", "bucket_prefix = bare", conf.read_text())
        conf.write_text(re.sub(r"access_key_file = \S+", f"access_key_file = {fleet.stack.dir / 's3-root'}", text))
        bare = fleet.verifier("verifier-2")
        assert bare.process.wait(30) != 0
        assert bare.says("the object store cannot be a vault: the store does not honour "), bare.text()
