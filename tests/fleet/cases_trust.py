"""What a fleet believes, and for how long: agreement of executors, revocation, generations, lifetimes, locks; on real Kafka and MinIO.

Functions case_* always run, full_* with KILN_FULL in the environment or when they are named."""

import pathlib
import shutil
import subprocess

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
