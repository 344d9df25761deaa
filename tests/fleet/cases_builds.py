"""Real cargo builds on a whole fleet: two agents of a tenant, a verifier, executors, on real Kafka and MinIO.

Functions case_* always run, full_* with KILN_FULL in the environment or when they are named."""

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import tarfile
import threading
import time

from kilnfleet import Fleet, why  # first: it knows where the others are
from cases_projects import fetch_ripgrep
from kilntest import REAL, Delta, artifacts, assert_same_artifacts, digest, wait_for

NO_NAMESPACES = ["unshare", "--user", "--map-root-user", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]


@contextlib.contextmanager
def a_fleet(world, **options):
    with Fleet(world, **options) as fleet:
        try:
            yield fleet
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{why(world, fleet)}") from problem


def build(world, project, agent, target, words=("build", "--offline"), **options):
    """The counters of one build, and how long it took."""
    begin = time.monotonic()
    with Delta(agent) as delta:
        world.cargo(project, agent, *words, target=world.path(target), **options)
    delta.seconds = time.monotonic() - begin
    return delta


def all_hits(delta):
    assert delta.executions == 0 and delta.misses == 0 and delta.local == 0 and delta.errors == 0, str(delta)
    assert delta.hits == delta.requests - delta.passed_through and delta.hits > 0, str(delta)


def small_crates(world, count, name="crates", salt=0, first=0):
    """A workspace of `count` crates that nobody has compiled."""
    root = world.path(name)
    for number in range(first, first + count):
        crate = root / f"c{number}"
        (crate / "src").mkdir(parents=True)
        (crate / "Cargo.toml").write_text(f'[package]\nname = "c{number}"\nversion = "0.1.0"\nedition = "2021"\n')
        (crate / "src" / "lib.rs").write_text(f"pub fn f() -> u32 {{ {number + 1000 * salt} }}\n")
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["c*"]\n')
    return root


def case_second_agent_executes_nothing(world):
    """What one agent had compiled the next one of its tenant gets from the vault alone, bit for bit what one machine makes.
    The second one is in a container-like root without user namespaces, and never talks to a broker. Another tenant shares nothing."""
    with a_fleet(world) as fleet:
        fleet.crew()
        first = fleet.agent("agent-1")
        one, two = (world.copy_project(REAL / "workspace", name) for name in ("one", "deeper/two"))
        cold = build(world, one, first, "target-one")
        print(f"  cold: {cold} {cold.seconds:.2f} s")
        assert cold.executions == cold.misses == cold.requests > 0 and cold.errors == 0, str(cold)
        wait_for(lambda: len(hints(fleet)) == 1, 15, "the first agent leaves its hints")
        second = fleet.agent("agent-2", prefix=NO_NAMESPACES)
        inside = ["nsenter", "--user", f"--target={second.process.pid}"]
        assert subprocess.run([*inside, "unshare", "--user", "true"], capture_output=True).returncode != 0, "namespaces can be made"
        warm = build(world, two, second, "elsewhere/target-two", prefix=inside)
        print(f"  warm: {warm} {warm.seconds:.2f} s")
        all_hits(warm)
        assert "hints=yes" in second.log_tail(), second.log_tail()
        assert status(second)["bus"] == "idle", status(second)
        assert_same_artifacts(artifacts(world.path("target-one")), artifacts(world.path("elsewhere/target-two")))
        alone = build(world, world.copy_project(REAL / "workspace", "three"), world.agent("embedded"), "target-three")
        assert alone.executions > 0
        assert_same_artifacts(artifacts(world.path("target-one")), artifacts(world.path("target-three")))
        stranger = fleet.agent("agent-3")
        apart = build(world, world.copy_project(REAL / "workspace", "four"), stranger, "target-four")
        assert apart.hits == 0 and apart.executions == apart.requests, str(apart)
        assert_same_artifacts(artifacts(world.path("target-one")), artifacts(world.path("target-four")))


def full_three_real_projects(world):
    """Debug and release builds on a fleet; the second agent, another home, executes nothing; the bits are those of one machine."""
    service = ("count-",)  # holds its own checkout's path
    sources = {"workspace": (REAL / "workspace", ()), "service": (REAL / "service", service), "ripgrep": (fetch_ripgrep(world), ())}
    with a_fleet(world) as fleet:
        fleet.crew()
        agents = {"one": fleet.agent("agent-1"), "two": fleet.agent("agent-2"), "alone": world.agent("embedded")}
        for name, (source, path_values) in sources.items():
            made = {}
            for who, agent in agents.items():
                project, home = world.copy_project(source, f"{who}/{name}"), world.cargo_home(f"home-{who}-{name}")
                for profile in ([], ["--release"]):
                    delta = build(world, project, agent, f"{who}/target-{name}", ["build", "--locked", *profile], cargo_home=home)
                    print(f"  {name} {who}: {delta} {delta.seconds:.2f} s")
                    assert delta.errors == 0, str(delta)
                    if who == "two":
                        assert delta.executions == delta.misses == 0 < delta.hits, str(delta)
                made[who] = artifacts(world.path(f"{who}/target-{name}"))
            assert_same_artifacts(made["one"], made["two"], path_values)
            assert_same_artifacts(made["one"], made["alone"], path_values)


def full_public_packages_are_shared(world):
    """Units of packages on the operator's list, and what depends on nothing else, are compiled once for all tenants."""
    home = world.cargo_home("home")
    project = world.copy_project(REAL / "service", "service")
    world.cargo(project, None, "fetch", "--locked", cargo_home=home)
    with a_fleet(world) as fleet:
        archives = [str(path) for path in (home / "registry" / "cache").glob("*")]
        fleet.stack.admin("public", "--roots", fleet.stack.roots(), "--checksums", str(project / "Cargo.lock"), *archives)
        fleet.verifier()
        fleet.executor()
        first = fleet.agent("agent-1")
        cold = build(world, project, first, "target-red", cargo_home=home)
        print(f"  first tenant: {cold} {cold.seconds:.2f} s")
        assert cold.errors == 0 and cold.local == 0 and cold.executions == cold.misses > 80, str(cold)
        stranger = fleet.agent("agent-3")
        other = build(world, world.copy_project(REAL / "service", "elsewhere/service"), stranger, "target-blue",
                      cargo_home=world.cargo_home("home-blue"))
        print(f"  second tenant: {other} {other.seconds:.2f} s")
        assert other.hits > 60 and other.local == 0 and other.errors == 0, str(other)
        assert other.executions == other.misses > 0, str(other)  # its own package, and what build scripts generate for
        assert_same_artifacts(artifacts(world.path("target-red")), artifacts(world.path("target-blue")), ("count-", "service-", "libservice"))


def registry(world, name, base):
    """A registry on the disk with two packages, `based` on `base`, whose source is the text."""
    place = world.path(name)
    for package, deps, source in (("base", [], base), ("based", ["base"], "pub fn two() -> u32 { 2 * base::one() }\n")):
        manifest = f'[package]\nname = "{package}"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\n' + "".join(f'{one} = "1"\n' for one in deps)
        archive = place / f"{package}-1.0.0.crate"
        place.mkdir(exist_ok=True)
        with tarfile.open(archive, "w:gz") as out:
            for file, text in (("Cargo.toml", manifest), ("src/lib.rs", source)):
                member = tarfile.TarInfo(f"{package}-1.0.0/{file}")
                member.size = len(text)
                out.addfile(member, io.BytesIO(text.encode()))
        index = place / "index" / package[:2] / package[2:4] / package
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps({
            "name": package, "vers": "1.0.0", "cksum": digest(archive), "features": {}, "yanked": False,
            "deps": [{"name": one, "req": "^1", "features": [], "optional": False, "default_features": True, "target": None, "kind": "normal"}
                     for one in deps]}) + "\n")
    return place


def user_of(world, name, place):
    """A project of its own that uses the packages of such a registry."""
    root = world.path(name)
    (root / "src").mkdir(parents=True)
    (root / ".cargo").mkdir()
    (root / ".cargo" / "config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "own"\n[source.own]\nlocal-registry = "{place}"\n')
    (root / "Cargo.toml").write_text('[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nbased = "1"\n')
    (root / "src" / "main.rs").write_text('fn main() { println!("{}", based::two()) }\n')
    return root


def case_an_archive_that_is_not_the_listed_one(world):
    """Packages of the operators' list are compiled once for all tenants; one of the same name and version with another archive is its
    tenant's own, and so is what depends on it."""
    right = registry(world, "right", "pub fn one() -> u32 { 1 }\n")
    wrong = registry(world, "wrong", "pub fn one() -> u32 { 666 }\n")
    checksums = world.path("checksums")
    checksums.write_text("".join(f"{digest(archive)}  {archive.name}\n" for archive in right.glob("*.crate")))

    def build_of(place, agent, name):
        return build(world, user_of(world, f"project-{name}", place), agent, f"target-{name}", cargo_home=world.path(f"home-{name}"))

    with a_fleet(world) as fleet:
        listed = fleet.stack.admin("public", "--roots", fleet.stack.roots(), "--checksums", str(checksums), str(right), str(wrong))
        print(f"  {listed.stdout.strip()}")
        fleet.verifier()
        fleet.executor()
        red, blue = fleet.agent("agent-1"), fleet.agent("agent-3")
        other = build_of(wrong, red, "wrong")
        assert other.executions == 3 and other.local == 0, str(other)
        first = build_of(right, red, "red")
        print(f"  red: wrong {other}, right {first}")
        assert first.executions == 3 and first.local == 0, str(first)
        second = build_of(right, blue, "blue")
        print(f"  blue: {second}")
        assert second.hits == 2 and second.executions == 1 and second.local == 0, str(second)  # its own crate
        apart = build_of(wrong, blue, "blue-wrong")
        assert apart.hits == 0 and apart.executions == 3, str(apart)
        listing = fleet.stack.s3("root").request("GET", "/kiln-vault", query={"list-type": "2", "prefix": "ac/public/"}).body.decode()
        assert listing.count("<Key>") == 2, listing
        for name, text in (("red", "2"), ("blue", "2"), ("wrong", "1332"), ("blue-wrong", "1332")):
            assert subprocess.run([world.path(f"target-{name}") / "debug" / "user"], capture_output=True, text=True).stdout == text + "\n"
        alone = build_of(right, world.agent("embedded"), "alone")
        assert alone.executions == 3, str(alone)
        for name in ("red", "blue"):
            assert_same_artifacts(artifacts(world.path(f"target-{name}")), artifacts(world.path("target-alone")))


def hints(fleet):
    """The keys of the hints that agents of tenant red left in quarantine."""
    listing = fleet.stack.s3("root").request("GET", "/kiln-quarantine", query={"list-type": "2", "prefix": "in/red/hints/"})
    return [part.split("</Key>")[0] for part in listing.body.decode().split("<Key>")[1:]]


def status(agent):
    return agent.status()["fleet"]


def case_hostile_hints_only_cost_their_fetching(world):
    """Hints are written by any agent of the tenant: garbage is refused, and names of nothing lead to nothing."""
    with a_fleet(world) as fleet:
        fleet.verifier()
        fleet.executor()
        first = fleet.agent("agent-1")
        project = world.copy_project(REAL / "workspace", "one")
        build(world, project, first, "target-one")
        key, = wait_for(lambda: hints(fleet), 15, "hints")
        liar = fleet.stack.s3("agent-2")
        for bytes_ in (b"kiln-hints-1\0\xff\xff\xff\xff", b"x" * 70000,
                       b"kiln-hints-1\0\0\0\0\2" + b"\0" + b"\1" * 32 + b"\1" + b"\2" * 32):
            liar.must("PUT", f"/kiln-quarantine/{key}", body=bytes_)
            agent = fleet.agent("agent-2", dir=f"victim-{len(bytes_)}")
            all_hits(build(world, world.copy_project(REAL / "workspace", f"p-{len(bytes_)}"), agent, f"target-{len(bytes_)}"))
            assert len(bytes_) < 90 or "hints_refused" in agent.log_tail(), agent.log_tail()
            agent.stop()


def case_a_dead_fleet_costs_little_and_comes_back(world):
    """Both servers stopped, then one at a time: the build ends right, with the named reason, in bounded time; afterwards the same
    agent hits again."""
    with a_fleet(world) as fleet:
        fleet.verifier()
        fleet.executor()
        agent = fleet.agent("agent-1")
        build(world, small_crates(world, 4, "before"), agent, "target-before")
        plain = small_crates(world, 20, "plain", salt=1)
        begin = time.monotonic()
        world.cargo(plain, None, "build", "--offline", target=world.path("target-plain"))
        bare = time.monotonic() - begin
        for number, (servers, reasons) in enumerate(((("kafka", "minio"), {"store_unreachable"}), (("minio",), {"store_unreachable"}),
                                                     (("kafka",), {"fleet_unreachable"}))):
            for server in servers:
                fleet.stack.stop(server, kill=True)
            gone = build(world, small_crates(world, 20, f"gone-{number}", salt=10 + number), agent, f"target-gone-{number}")
            print(f"  without {servers}: {gone} {gone.seconds:.2f} s, without Kiln {bare:.2f} s")
            assert gone.local == 20 and set(gone.reasons) == reasons, str(gone)
            assert gone.seconds < bare + 2.5 + 20 * 0.05 + 1, f"{gone.seconds:.2f} s, without Kiln {bare:.2f} s"
            for server in servers:
                fleet.stack.start(server)
            wait_for(lambda: status(agent)["store_up"] and status(agent)["bus"] in ("up", "idle"), 60, "the agent finds its fleet again")
            back = build(world, small_crates(world, 3, f"back-{number}", salt=20 + number), agent, f"target-back-{number}")
            assert back.executions == 3 and back.local == 0, str(back)
            again = build(world, world.path("before"), agent, f"target-again-{number}")
            assert again.local == 0 and again.hits == 4, str(again)


def case_a_fleet_that_hangs_costs_a_wait_once(world):
    """Servers that take connections and say nothing: found out once, by the store or by the brokers, and left alone until they talk."""
    with a_fleet(world) as fleet:
        fleet.verifier()
        fleet.executor()
        agent = fleet.agent("agent-1")
        build(world, small_crates(world, 4, "before"), agent, "target-before")
        for number, (server, reasons, bound) in enumerate((("minio", {"store_unreachable"}, 5),
                                                           ("kafka", {"fleet_silent", "fleet_unreachable"}, 8))):
            pid = int(dict(re.findall(r"(\w+): healthy, process (\d+)", fleet.stack.call("status").stdout))[server])
            os.kill(pid, signal.SIGSTOP)
            try:
                hung = build(world, small_crates(world, 10, f"hung-{number}", salt=10 + number), agent, f"target-hung-{number}")
            finally:
                os.kill(pid, signal.SIGCONT)
            print(f"  {server} hangs: {hung} {hung.seconds:.2f} s")
            assert hung.local == 10 and set(hung.reasons) <= reasons, str(hung)
            assert hung.seconds < bound, hung.seconds
            wait_for(lambda: status(agent)["store_up"] and status(agent)["bus"] == "up", 60, "the agent finds its fleet again")
            back = build(world, small_crates(world, 3, f"back-{number}", salt=20 + number), agent, f"target-back-{number}")
            assert back.executions == 3 and back.local == 0, str(back)


def case_an_unpublished_toolchain_is_named(world):
    """Executors compile only with what an operator published; once it is, nothing has to be restarted."""
    with a_fleet(world, toolchain=False) as fleet:
        fleet.verifier()
        fleet.executor()
        agent = fleet.agent("agent-1")
        without = build(world, small_crates(world, 2, "without"), agent, "target-without")
        print(f"  unpublished: {without} {without.seconds:.2f} s")
        assert without.local == 2 and without.executions == 0 and set(without.reasons) == {"toolchain_unpublished"}, str(without)
        fleet.publish()
        after = build(world, small_crates(world, 2, "after", salt=1), agent, "target-after")
        assert after.executions == 2 and after.local == 0, str(after)


def slow_project(world, name, seconds):
    """A crate whose compile takes about that long, by a macro."""
    root = world.path(name)
    for crate, kind, text in (
            ("slow", "[lib]\nproc-macro = true\n",
             "#[proc_macro] pub fn wait(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
             f"    std::thread::sleep(std::time::Duration::from_millis({int(seconds * 1000)})); Default::default() }}\n"),
            ("user", '[dependencies]\nslow = { path = "../slow" }\n', "slow::wait!();\npub fn f() {}\n")):
        (root / crate / "src").mkdir(parents=True)
        (root / crate / "Cargo.toml").write_text(f'[package]\nname = "{crate}"\nversion = "0.1.0"\nedition = "2021"\n{kind}')
        (root / crate / "src" / "lib.rs").write_text(text)
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["slow", "user"]\n')
    return root


def case_an_executor_drains(world):
    """SIGTERM lets the running job end and its result count; the executor takes no more and ends well."""
    with a_fleet(world) as fleet:
        fleet.verifier()
        executor = fleet.executor()
        agent = fleet.agent("agent-1")
        project = slow_project(world, "slow-project", 3)
        done = []
        thread = threading.Thread(target=lambda: done.append(build(world, project, agent, "target")))
        thread.start()
        wait_for(lambda: executor.says("event=job_ended"), 60, "the macro is compiled")
        wait_for(lambda: len(running_jobs(world)) > 0, 30, "the slow job runs")
        executor.signal(signal.SIGTERM)
        assert executor.process.wait(30) == 0
        assert executor.says("event=draining") and not executor.says("event=ending")
        thread.join(60)
        delta, = done
        assert delta.executions == 2 and delta.local == 0, str(delta)


def running_jobs(world):
    """kiln-run processes of this world."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "exe") == world.program("kiln-run"):
                found.append(entry.name)
    return found


def case_a_late_result_is_kept(world):
    """A unit whose kind is known to be quick is not waited for long; what comes later is a hit for the next build."""
    with a_fleet(world) as fleet:
        fleet.verifier()
        executor = fleet.executor()
        agent = fleet.agent("agent-1")
        for salt in range(5):
            quick = build(world, small_crates(world, 1, f"quick-{salt}", salt=salt), agent, f"target-quick-{salt}")
            assert quick.executions == 1, str(quick)
        executor.signal(signal.SIGSTOP)
        project = small_crates(world, 1, "frozen", salt=9)
        late = build(world, project, agent, "target-late")
        executor.signal(signal.SIGCONT)
        print(f"  late: {late} {late.seconds:.2f} s")
        assert late.local == 1 and set(late.reasons) == {"late"}, str(late)
        assert 2 <= late.seconds < 20, late.seconds  # the first of the quick ones brought the toolchain
        wait_for(lambda: "event=late_result kept=yes" in agent.log_tail(), 30, "the late result")
        all_hits(build(world, project, agent, "target-again"))
