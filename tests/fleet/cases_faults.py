"""Servers, verifiers and executors that die in the middle of builds, on real Kafka and MinIO.

Functions case_* always run, full_* with KILN_FULL in the environment or when they are named. Each build's result is compared with
what cargo makes without Kiln's fleet, and the vault may hold one version of each pointer."""

import re
import signal
import threading
import time

from cases_builds import a_fleet, all_hits, build, running_jobs, slow_project, small_crates, status
from kilntest import artifacts, assert_same_artifacts, wait_for

# What may keep a unit from the fleet while a part of it is away. Anything else is a fault of ours.
NAMED = {"store_unreachable", "fleet_unreachable", "fleet_silent", "late", "storage"}


class Building:
    """A build in a thread, so that something can be done to the fleet meanwhile."""

    def __init__(self, *arguments, **options):
        self.delta = self.problem = None
        self.thread = threading.Thread(target=self.run, args=arguments, kwargs=options)
        self.thread.start()

    def run(self, *arguments, **options):
        try:
            self.delta = build(*arguments, **options)
        except BaseException as problem:  # told to the one who waits
            self.problem = problem

    def alive(self):
        return self.thread.is_alive()

    def end(self, seconds):
        self.thread.join(seconds)
        assert not self.alive(), f"the build has not ended within {seconds} s"
        if self.problem:
            raise AssertionError(f"the build failed: {self.problem}") from self.problem
        return self.delta


def answered(delta, may_be_local=True):
    """Every unit was answered by the fleet, or compiled here for a reason that has a name."""
    fleet_or_here = delta.hits + delta.misses + delta.passed_through
    assert delta.errors == 0 and delta.corrupt == 0 and delta.requests > 0, str(delta)
    assert fleet_or_here + delta.local >= delta.requests, str(delta)
    assert set(delta.reasons) <= NAMED and sum(delta.reasons.values()) == delta.local, str(delta)
    assert may_be_local or delta.local == 0, str(delta)


def pointer_versions(fleet):
    """Key of each action's pointer -> number of its versions and delete markers."""
    found, marker = {}, {}
    storage = fleet.stack.s3("root")
    while True:
        query = {"versions": "", "prefix": "ac/", **marker}
        text = storage.must("GET", "/kiln-vault", query=query).body.decode()
        for kind in ("Version", "DeleteMarker"):
            for part in re.findall(f"<{kind}>(.*?)</{kind}>", text, re.S):
                key = re.search("<Key>(.*?)</Key>", part).group(1)
                found[key] = found.get(key, 0) + 1
        if "<IsTruncated>true" not in text:
            return found
        marker = {"key-marker": re.search("<NextKeyMarker>(.*?)<", text).group(1),
                  "version-id-marker": re.search("<NextVersionIdMarker>(.*?)<", text).group(1)}


def one_visible_result(fleet):
    versions = pointer_versions(fleet)
    assert versions, "nothing was stored"
    several = {key: count for key, count in versions.items() if count != 1}
    assert not several, f"{len(several)} of {len(versions)} pointers have several versions: {list(several.items())[:3]}"


def rightly_made(world, project, name, delta):
    """What came from the fleet is what an agent without one makes; what was compiled here (by the user's own command, which knows
    its paths) is what cargo makes without Kiln. Only as many units as were compiled here may be of the second kind."""
    made, alone = artifacts(world.path(f"target-{name}")), world.agent(f"alone-{name}")
    build(world, project, alone, f"target-alone-{name}")
    alone.stop()
    embedded = artifacts(world.path(f"target-alone-{name}"))
    if delta.local == 0:
        assert_same_artifacts(embedded, made)
        return
    world.cargo(project, None, "build", "--offline", target=world.path(f"target-plain-{name}"))
    plain = artifacts(world.path(f"target-plain-{name}"))
    assert set(made) == set(embedded) == set(plain), "other files"
    wrong = [file for file in made if made[file] not in (embedded[file], plain[file])]
    assert not wrong, f"{len(wrong)} of {len(made)} are neither the fleet's nor cargo's: {wrong[:5]}"
    here = {file.split("/")[-1].split("-")[0].split(".")[0] for file in made if made[file] != embedded[file]}
    assert len(here) <= delta.local, f"{sorted(here)} are not the fleet's: {delta}"


def case_verifiers_end_die_and_are_gone(world):
    """On SIGTERM the others take over within seconds. After kill -9 when its session has ended: what nobody accepts within two
    seconds is compiled here, for a named reason. Without any verifier that costs two seconds once, until one is heard again."""
    with a_fleet(world) as fleet:
        first, second = (fleet.verifier(name) for name in ("verifier-1", "verifier-2"))
        fleet.executor()
        agent = fleet.agent("agent-1")
        build(world, small_crates(world, 8, "before"), agent, "target-before")
        first.end()
        ended = build(world, small_crates(world, 8, "ended", salt=1, first=10), agent, "target-ended")
        print(f"  one ended: {ended} {ended.seconds:.2f} s")
        answered(ended, may_be_local=False)
        assert ended.executions == 8 and ended.seconds < 4, f"{ended} {ended.seconds:.2f} s"
        second.kill()
        gone = small_crates(world, 20, "gone", salt=2, first=20)
        nobody = build(world, gone, agent, "target-gone")
        begin = time.monotonic()
        world.cargo(gone, None, "build", "--offline", target=world.path("target-plain"))
        bare = time.monotonic() - begin
        print(f"  none there: {nobody} {nobody.seconds:.2f} s, without Kiln {bare:.2f} s")
        assert nobody.local == 20 and set(nobody.reasons) == {"fleet_silent"}, str(nobody)
        assert nobody.seconds < bare + 2 + 20 * 0.05 + 1, f"{nobody.seconds:.2f} s, without Kiln {bare:.2f} s"
        second.start()  # takes what was left unaccepted, and is heard by that
        back = Attempts(world, agent)
        wait_for(lambda: back.one().executions > 0, 60, "the agent hears the verifier that is back")
        first.start()
        rebalanced(second, first, world, agent)
        second.kill()
        killed = build(world, small_crates(world, 8, "killed", salt=3, first=50), agent, "target-killed")
        print(f"  one killed: {killed} {killed.seconds:.2f} s")
        answered(killed)
        assert killed.seconds < 12, f"{killed.seconds:.2f} s"
        one_visible_result(fleet)


class Attempts:
    """Builds of one new crate each."""

    def __init__(self, world, agent):
        self.world, self.agent, self.number = world, agent, 0

    def one(self):
        self.number += 1
        name = f"attempt-{self.number}"
        return build(self.world, small_crates(self.world, 1, name, salt=1000 + self.number), self.agent, f"target-{name}")


def rebalanced(one, other, world, agent):
    """Builds until both verifiers have decided something since: both own partitions."""
    before = [len(member.says("event=submitted")) for member in (one, other)]

    def both():
        rebalanced.number += 1
        name = f"shared-{rebalanced.number}"
        build(world, small_crates(world, 6, name, salt=100 + rebalanced.number), agent, f"target-{name}")
        return all(len(member.says("event=submitted")) > count for member, count in zip((one, other), before))
    wait_for(both, 60, "both verifiers work")


rebalanced.number = 0


def break_during_build(world, fleet, agent, number, do):
    """Breaks something once some of a build's results are there, and sees the build through."""
    project = small_crates(world, 16, f"crates-{number}", salt=1 + number)
    before = agent.stats()["requests"]
    building = Building(world, project, agent, f"target-{number}", words=("build", "--offline", "-j4"))
    wait_for(lambda: agent.stats()["requests"] >= before + 6 or not building.alive(), 60, "the build is on its way")
    assert building.alive(), "the build was over before anything was broken"
    do()
    delta = building.end(90)
    answered(delta)
    rightly_made(world, project, str(number), delta)
    return delta


def kill_and_restart(world, rounds):
    with a_fleet(world) as fleet:
        verifiers = [fleet.verifier(name) for name in ("verifier-1", "verifier-2")]
        executors = [fleet.executor(name, slots=1) for name in ("executor-1", "executor-2")]
        agent = fleet.agent("agent-1")
        build(world, small_crates(world, 4, "before"), agent, "target-before")

        def again(member):
            member.kill()
            member.start()
        victims = [(member.name, lambda member=member: again(member)) for member in verifiers + executors]
        victims += [(server, lambda server=server: fleet.stack.restart(server, kill=True)) for server in ("kafka", "minio")]
        for number in range(rounds * len(victims)):
            name, do = victims[number % len(victims)]
            delta = break_during_build(world, fleet, agent, number, do)
            print(f"  {name} killed: {delta} {delta.seconds:.2f} s", flush=True)
            wait_for(lambda: status(agent)["store_up"] and status(agent)["bus"] in ("up", "idle"), 60, "the agent finds its fleet again")
        for member in verifiers + executors:
            assert member.runs(), member.name
        one_visible_result(fleet)


def case_each_part_killed_during_a_build(world):
    kill_and_restart(world, 1)


def full_each_part_killed_twenty_times(world):
    kill_and_restart(world, 20)


def case_a_long_job_is_not_evicted(world):
    """A job longer than max.poll.interval.ms keeps its executor, its verifier its partitions."""
    more = "\n[kafka]\nmax.poll.interval.ms = 6000\n"
    with a_fleet(world) as fleet:
        verifier = fleet.verifier(more=more)
        executor = fleet.executor(more=more)
        agent = fleet.agent("agent-1", more)
        long = build(world, slow_project(world, "slow-project", 12), agent, "target")
        print(f"  {long} {long.seconds:.2f} s")
        answered(long, may_be_local=False)
        assert long.executions == 2 and long.seconds > 12, f"{long} {long.seconds:.2f} s"
        assert len(executor.says("event=job_ended")) == 2, "a job ran twice"
        assert not verifier.says("event=(?:lease_lost|lost)"), verifier.text()[-2000:]
        one_visible_result(fleet)


def case_the_stack_stops_during_a_build(world):
    """All servers and programs of the fleet gone in the middle of a build: it ends right and in bounded time; once all is there
    again, the same agent hits."""
    with a_fleet(world) as fleet:
        members = [fleet.verifier(), fleet.executor()]
        agent = fleet.agent("agent-1")
        build(world, small_crates(world, 4, "before"), agent, "target-before")

        def stop():
            for member in members:
                member.signal(signal.SIGKILL)
            for server in ("kafka", "minio"):
                fleet.stack.stop(server, kill=True)
        delta = break_during_build(world, fleet, agent, 0, stop)
        print(f"  {delta} {delta.seconds:.2f} s")
        assert delta.local > 0 and delta.seconds < 8, f"{delta} {delta.seconds:.2f} s"  # 1 to 2 s alone
        begin = time.monotonic()
        gone = small_crates(world, 20, "gone", salt=50)
        dead = build(world, gone, agent, "target-gone")
        world.cargo(gone, None, "build", "--offline", target=world.path("target-plain"))
        bare = time.monotonic() - begin - dead.seconds
        print(f"  without the stack: {dead} {dead.seconds:.2f} s, without Kiln {bare:.2f} s")
        assert dead.local == 20, str(dead)
        assert dead.seconds < bare + 2.5 + 20 * 0.05 + 1, f"{dead.seconds:.2f} s, without Kiln {bare:.2f} s"
        for server in ("kafka", "minio"):
            fleet.stack.start(server)
        for member in members:
            member.kill()
            member.start()
        wait_for(lambda: status(agent)["store_up"] and status(agent)["bus"] in ("up", "idle"), 60, "the agent finds its fleet again")
        all_hits(build(world, world.path("before"), agent, "target-again"))
        assert running_jobs(world) == []
