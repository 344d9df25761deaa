#!/usr/bin/env python3
"""What lies on the topics after a build, read with kcat and decoded with nothing but schemas/. Usage: test_decode.py BUILD [WORD]"""

import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import kilnfleet  # noqa: E402
from cases_builds import a_fleet, build, small_crates  # noqa: E402
from kilntest import Skip, wait_for  # noqa: E402
from read_topic import Reader  # noqa: E402

CRATES = 2
GARBAGE = b"\0\1\2 no record"
LEASE = "\n[verifier]\nlease = 2s\n"  # a heartbeat each 500 ms
# Takes its compiler a second or two.
SLOW = """#![allow(long_running_const_eval)]
pub const SLOW: u64 = { let mut i = 0; while i < 2_000_000 { i += 1; } i };
"""
# Topic: the records that must be there.
EXPECTED = {
    "kiln.jobs": {"job_submitted", "job_uploaded"},
    "kiln.work": {"work"},
    "kiln.credits": {"credit"},
    "kiln.leases": {"lease"},
    "kiln.candidates": {"candidate"},
    "kiln.results.red": {"answer"},
    "kiln.state": {"state_waiter", "state_flight"},
    "kiln.ledger": {"ledger_entry"},
    "kiln.events": {"event"},
    "kiln.dlq": {"dead_letter"},
}
# All that may be there.
ALLOWED = {**EXPECTED, "kiln.jobs": EXPECTED["kiln.jobs"] | {"job_cancelled"}, "kiln.work": {"work", "demand"},
           "kiln.leases": {"lease", "decline"}}


def kcat(stack, principal, *words, timeout=60, **options):
    role = stack.role(principal)
    settings = {"security.protocol": "ssl", "ssl.ca.location": role / "ca.crt", "ssl.certificate.location": role / "tls.crt",
                "ssl.key.location": role / "tls.key"}
    given = [word for name, value in settings.items() for word in ("-X", f"{name}={value}")]
    return subprocess.run(["kcat", "-q", "-b", stack.env()["KILN_STACK_BROKERS"], *given, *map(str, words)], timeout=timeout, check=True,
                          stdout=subprocess.PIPE, **options).stdout


def records(stack, topic, timeout=60):
    """(partition, offset, key, value) of all that the reader gets; None for an absent value."""
    bytes_ = kcat(stack, "reader", "-C", "-t", topic, "-o", "beginning", "-e", "-f", r"%p %o %K %S\n%k%s", stdin=subprocess.DEVNULL,
                  timeout=timeout)
    at, found = 0, []
    while at < len(bytes_):
        end = bytes_.index(b"\n", at)
        partition, offset, key_len, value_len = map(int, bytes_[at:end].split())
        key_end = end + 1 + max(key_len, 0)
        at = key_end + max(value_len, 0)
        found.append((partition, offset, bytes_[end + 1:key_end], bytes_[key_end:at] if value_len > 0 else None))
    assert at == len(bytes_)
    return found


def decoded(stack, reader, topic):
    """[(partition, key, record, fields)] of a topic, each of them decoded."""
    made = []
    for partition, offset, key, value in records(stack, topic):
        if value is None:
            assert topic == "kiln.state", f"an empty record on {topic}, partition {partition}, offset {offset}"
            continue
        if value != GARBAGE:
            made.append((partition, key, *reader.decode(value)))
    return made


def check_job(topics):
    """One job's way through the topics: the same digests and ids everywhere."""
    submitted = {fields["job"]: (partition, key, fields) for partition, key, name, fields in topics["kiln.jobs"] if name == "job_submitted"}
    actions = {fields["action_digest"] for _, _, fields in submitted.values()}
    assert len(actions) == CRATES, f"{len(actions)} actions"
    for partition, key, fields in submitted.values():
        assert fields["tenant"] == "red" and fields["agent"] == "agent-1" and fields["scope"] == "red", fields
        assert key == fields["action_digest"] and partition == int.from_bytes(key[:4], "big") % 4
        assert fields["action"].startswith(b"kiln-action-1\0"), fields["action"][:20]
    candidates = [fields for _, _, _, fields in topics["kiln.candidates"]]
    assert {fields["action_digest"] for fields in candidates} == actions
    for fields in candidates:
        assert (fields["executor"], fields["pool"], fields["status"], fields["exit_code"]) == ("executor-1", "north", 0, 0), fields
        assert any(output["name"].endswith(".rlib") for output in fields["outputs"]), fields["outputs"]
    credits = {fields["credit"] for _, _, _, fields in topics["kiln.credits"]}
    works = [fields for _, _, name, fields in topics["kiln.work"] if name == "work"]
    assert all(work["credit"] in credits and work["action_digest"] in actions and work["job"] in submitted for work in works)
    results = [fields for _, _, _, fields in topics["kiln.results.red"] if fields["status"] == 2]
    assert {fields["action_digest"] for fields in results} == actions
    assert all(fields["envelope"].startswith(b"kiln-signed-1\0") and set(fields["jobs"]) <= set(submitted) for fields in results)


def check_aside(topics):
    waiters = [(key, fields) for _, key, name, fields in topics["kiln.state"] if name == "state_waiter"]
    reader = Reader()
    for key, fields in waiters:
        name, submission = reader.decode(fields["submission"])
        assert name == "job_submitted" and key == submission["action_digest"] + submission["job"] and fields["principal"] == "agent-1"
    ledger = [fields for _, _, _, fields in topics["kiln.ledger"]]
    for event in ("submitted", "wanted", "uploaded", "dispatched", "judged", "stored", "result"):
        assert sum(fields["event"] == event for fields in ledger) >= CRATES, f"{event} is missing in the ledger"
    assert {fields["verifier"] for fields in ledger} == {"verifier-1"}
    letters = [fields for _, _, _, fields in topics["kiln.dlq"]]
    assert [letter["value"] for letter in letters] == [GARBAGE], letters
    assert letters[0]["topic"] == "kiln.jobs" and letters[0]["partition"] == 1 and letters[0]["size"] == len(GARBAGE), letters
    assert letters[0]["reason"].startswith("signature: "), letters
    assert "signature" in {fields["name"] for _, _, _, fields in topics["kiln.events"]}


def case_every_topic_is_decoded_by_schemas_alone(world):
    """kcat as the reader gets the raw records of a build, and of a record that is none; the reader of schemas/ knows each."""
    if not shutil.which("kcat"):
        raise Skip("kcat")
    with a_fleet(world) as fleet:
        fleet.verifier(more=LEASE)
        fleet.executor()
        agent = fleet.agent("agent-1")
        project = small_crates(world, CRATES)
        source = project / "c0" / "src" / "lib.rs"
        source.write_text(SLOW + source.read_text())
        delta = build(world, project, agent, "target")
        assert delta.executions == CRATES, str(delta)
        kcat(fleet.stack, "agent-1", "-P", "-t", "kiln.jobs", "-p", "1", input=GARBAGE)
        reader = Reader()
        wait_for(lambda: len(records(fleet.stack, "kiln.dlq")) == 1, 20, "a dead letter")
        topics = {topic: decoded(fleet.stack, reader, topic) for topic in EXPECTED}
        for topic, found in topics.items():
            names = {name for _, _, name, _ in found}
            assert EXPECTED[topic] <= names <= ALLOWED[topic], f"{topic}: {names}"
        check_job(topics)
        check_aside(topics)


if __name__ == "__main__":
    sys.exit(kilnfleet.main(sys.modules[__name__], sys.argv))
