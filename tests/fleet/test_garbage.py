#!/usr/bin/env python3
"""Garbage on every topic of a whole fleet (garbage.c): nothing stalls, grows or is lost sight of. Usage: test_garbage.py BUILD [WORD]

2,000 records on each topic; 100,000 with KILN_FULL in the environment."""

import collections
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import kilnfleet  # noqa: E402
from cases_builds import a_fleet, build, small_crates, status  # noqa: E402
from kilntest import wait_for  # noqa: E402
from read_topic import Reader  # noqa: E402
from test_decode import kcat, records  # noqa: E402

COUNT = 100_000 if "KILN_FULL" in os.environ else 2_000
SECONDS = 1800 if "KILN_FULL" in os.environ else 60  # for the verifier to read it all
OF_VERIFIERS = {"kiln.jobs", "kiln.credits", "kiln.leases", "kiln.candidates"}
FRAME_BYTES = 5
# What a process may grow by. With KILN_FULL verifiers are sent 110 MB, executors 27 MB. A verifier may hold 48 MiB that it has read and
# not judged; the others drop at once.
GROWTH_KB = {"verifier": 64 << 10, "executor": 16 << 10, "agent": 16 << 10}
Record = collections.namedtuple("Record", "size words")


def scatter(world, fleet, seed=1):
    """{topic: {(partition, offset): Record}} of what was written."""
    valid = "".join(f"{one['record']} {one['hex']}\n" for one in json.loads((HERE.parents[1] / "schemas" / "golden.json").read_text()))
    done = subprocess.run([pathlib.Path(world.build) / "tests" / "fleet_garbage", fleet.stack.dir, str(COUNT), str(seed)], input=valid,
                          stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True)
    made = collections.defaultdict(dict)
    for line in done.stdout.splitlines():
        topic, partition, offset, size, words = line.split()
        made[topic][int(partition), int(offset)] = Record(int(size), words.split("|"))
    assert {len(written) for written in made.values()} == {COUNT} and len(made) == 11, {name: len(made[name]) for name in made}
    return made


def end_of(fleet, topic):
    """How many records one-partition topics hold."""
    return int(kcat(fleet.stack, "reader", "-Q", "-t", f"{topic}:0:-1", stdin=subprocess.DEVNULL).split()[-1])


def letters(fleet, garbage):
    """The dead letters that verifiers wrote: [(topic, partition, offset, reason, size)]."""
    reader, found = Reader(), []
    for _, offset, _, value in records(fleet.stack, "kiln.dlq", SECONDS):
        if (0, offset) in garbage:
            continue
        name, fields = reader.decode(value)
        assert name == "dead_letter" and fields["verifier"] == "verifier-1", (name, fields)
        assert len(fields["value"]) == min(fields["size"], 240 << 10), fields["size"]
        found.append(tuple(fields[field] for field in ("topic", "partition", "offset", "reason", "size")))
    return found


def buried_once(found, topic, written):
    """Each of the written records has one dead letter, with where it was and why."""
    mine = {(partition, offset): (reason, size) for name, partition, offset, reason, size in found if name == topic}
    assert sum(name == topic for name, *_ in found) == len(mine), f"{topic}: a record was buried twice"
    assert set(mine) == set(written), f"{topic}: {len(mine)} dead letters of {len(written)}"
    for place, (reason, size) in mine.items():
        assert reason.split(":")[0] in written[place].words, f"{topic} {place}: {reason} instead of {written[place].words}"
        assert size == written[place].size, f"{topic} {place}: {size} instead of {written[place].size}"


def resident_kb(pid):
    return int(next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def honest(world, agent, name, salt):
    """Crates of every partition, all made by the fleet."""
    delta = build(world, small_crates(world, 8, name, salt=salt), agent, f"target-{name}")
    print(f"  {name}: {delta} {delta.seconds:.2f} s", flush=True)
    assert delta.executions == 8 and delta.local == 0 and delta.errors == 0, str(delta)
    return delta.seconds


def case_garbage_on_every_topic(world):
    """What verifiers read is buried once, by its place and reason; what executors and agents read is dropped and counted; and the
    builds after it are as before, also by a verifier that starts with a state full of garbage."""
    with a_fleet(world) as fleet:
        verifier, executor = fleet.verifier(), fleet.executor()
        agent = fleet.agent("agent-1")
        honest(world, agent, "first", 1)
        calm = honest(world, agent, "calm", 2)
        pids = {"verifier": verifier.process.pid, "executor": executor.process.pid, "agent": agent.process.pid}
        before = {name: resident_kb(pid) for name, pid in pids.items()}
        made = scatter(world, fleet)
        expected = COUNT + sum(len(made[topic]) for topic in OF_VERIFIERS)
        wait_for(lambda: end_of(fleet, "kiln.dlq") >= expected, SECONDS, f"{expected} records in kiln.dlq")
        after = honest(world, agent, "after", 3)
        assert after < 2 * calm + 5, f"{after:.2f} s instead of {calm:.2f}"
        found = letters(fleet, made["kiln.dlq"])
        for topic in OF_VERIFIERS:
            buried_once(found, topic, made[topic])
        assert len(found) == len(OF_VERIFIERS) * COUNT, len(found)
        print(f"  {len(found)} dead letters: {dict(collections.Counter(reason.split(':')[0] for _, _, _, reason, _ in found))}")
        wait_for(lambda: executor.says(rf"event=records_refused count={COUNT} "), 20, f"the executor tells of {COUNT} records")
        assert status(agent)["refused"] == COUNT // 4, status(agent)  # of the four partitions it reads one
        growth = {name: resident_kb(pid) - before[name] for name, pid in pids.items()}
        print(f"  resident before {before} kB, grown by {growth} kB", flush=True)
        assert all(growth[name] < GROWTH_KB[name] for name in pids), f"{before} kB have grown by {growth} kB"
        a_state_full_of_garbage(world, fleet, verifier, agent, made, len(found))


def a_state_full_of_garbage(world, fleet, verifier, agent, made, buried):
    """The next owner of the partitions tells how much it refused; what was signed and cannot be read is buried once, and gone."""
    state = made["kiln.state"]  # may be read at any time after it was signed
    signed = {place: record._replace(words=["form"]) for place, record in state.items()
              if record.words == ["form"] or (record.words == ["clock"] and record.size >= FRAME_BYTES)}
    dead = COUNT + buried + len(signed)
    for number, refused in ((1, COUNT), (2, COUNT - len(signed))):
        verifier.kill()
        known = len(verifier.says("event=restored"))
        verifier.start()
        wait_for(lambda: len(verifier.says("event=restored")) == known + 4, SECONDS, "the verifier has its partitions again")
        told = [int(count) for count in verifier.says(r"event=restored .* (\d+) refused")[known:]]
        assert sum(told) == refused, f"{told} instead of {refused}"
        honest(world, agent, f"restored-{number}", 3 + number)
        assert end_of(fleet, "kiln.dlq") == dead, f"{end_of(fleet, 'kiln.dlq')} instead of {dead}"
    found = letters(fleet, made["kiln.dlq"])
    buried_once(found, "kiln.state", signed)


if __name__ == "__main__":
    sys.exit(kilnfleet.main(sys.modules[__name__], sys.argv))
