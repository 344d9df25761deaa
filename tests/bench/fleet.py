"""The fleet's bench, on real Kafka and MinIO of its own (ops/stack): misses without a compiler, hits from an empty L0 against
sccache 0.19 and kache 2.0 on the same MinIO, the verifier's decisions per second, requests and bytes. tests/bench/fleet.py
--build DIR [--rounds N] [--misses N] [--peers DIR] [--json FILE] [--without sccache,kache] [--only misses,requests,hits] [--place DIR]

--place is where servers and members have their files; a tmpfs there shows what is left when no disk is waited for. Misses stand beside
what the store alone takes for the requests that a submission waits for, by the same client, in the same run.

All in one run and interleaved: ratios within a run hold, single times on a busy machine do not.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "e2e")]

from run import clean_environment  # noqa: E402  (this directory's, so before tests/e2e gets in front)
import kilntest  # noqa: E402
from delay_proxy import Proxy  # noqa: E402
from kilnfleet import Fleet  # noqa: E402

BUNDLE_BYTES = 55000  # of the outputs that the driver's jobs give
STEPS = ("submitted", "wanted", "uploaded", "dispatched", "judged", "filed")


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")


def median(values):
    return quantile(values, 0.5)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Store:
    """kiln-bench-store: single operations on the fleet's MinIO, with all rights."""

    def __init__(self, fleet, program):
        directory = fleet.world.path("driver-store")
        directory.mkdir(exist_ok=True, mode=0o700)
        conf = directory / "kiln.conf"
        conf.write_text(re.sub(r"access_key_file *=.*", f"access_key_file = {fleet.stack.dir / 's3-root'}",
                               fleet.stack.conf("verifier-1").read_text()))
        conf.chmod(0o600)
        self.process = subprocess.Popen([program, conf, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)

    def run(self, count, operation, size):
        self.process.stdin.write(f"{count} {operation} {size}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["ms"]


class Driver:
    """kiln-bench-miss: its two ends."""

    def __init__(self, fleet, program, confs=None):
        self.fleet, self.program, self.confs = fleet, program, confs or fleet.stack.conf

    def start(self, role, *words):
        directory = self.fleet.world.path(f"driver-{role}")
        directory.mkdir(exist_ok=True, mode=0o700)
        mode = "execute" if role.startswith("executor") else "submit"
        return subprocess.Popen([self.program, mode, self.confs(role), directory, *words], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        self.executor, self.agent = self.start("executor-1", "4"), self.start("agent-1")
        return self

    def __exit__(self, *_):
        for process in (self.agent, self.executor):
            process.stdin.close()
            process.wait(30)

    def round(self, count, threads, mode):
        self.agent.stdin.write(f"{count} {threads} {mode}\n")
        self.agent.stdin.flush()
        line = self.agent.stdout.readline()
        if not line:
            raise SystemExit("kiln-bench-miss ended")
        return json.loads(line)


def steps(log):
    """Median milliseconds from each step of a job to the next one, out of the verifier's log."""
    jobs = {}
    for line in log.splitlines():
        found = re.search(r"time=\S+T(\d+):(\d+):(\d+\.\d+)Z? .*event=(\w+) .*job=(\w+)", line)
        if found and found.group(4) in STEPS:
            hour, minute, second = found.groups()[:3]
            at = (int(hour) * 3600 + int(minute) * 60 + float(second)) * 1000
            jobs.setdefault(found.group(5), {}).setdefault(found.group(4), at)
    gaps = {}
    for job in jobs.values():
        seen = [step for step in STEPS if step in job]
        for before, after in zip(seen, seen[1:]):
            gaps.setdefault(f"{before} to {after}", []).append(job[after] - job[before])
    return {name: round(median(values), 1) for name, values in gaps.items()}


def conf_through(fleet, proxies, name):
    """The role's configuration with the proxy of that role for its S3."""
    endpoint = fleet.stack.env()["KILN_STACK_S3"]
    file = fleet.world.path(f"{name}-proxied.conf")
    file.write_text(fleet.stack.conf(name).read_text().replace(endpoint, f"http://127.0.0.1:{proxies[name].port}"))
    file.chmod(0o600)
    return file


def measure_misses(fleet, options, program, report):
    verifier = fleet.verifier()
    kinds = [("known", 1), ("new", 1), ("known", 4), ("new", 4), ("hit", 4)]
    took, walls, cpu, gaps, alone = {}, {}, {}, {}, {}
    with Driver(fleet, program) as driver, Store(fleet, program.parent / "kiln-bench-store") as store:
        driver.round(10, 2, "known")  # connections, credits
        store.run(5, "miss", BUNDLE_BYTES)
        for _ in range(options.rounds):
            for mode, threads in kinds:
                at, before = len(verifier.text()), cpu_seconds(verifier.process.pid)
                done = driver.round(options.misses, threads, mode)
                kind = f"{mode}, {threads} at once"
                took.setdefault(kind, []).extend(done["ms"])
                walls[kind] = walls.get(kind, 0) + done["wall_ms"]
                cpu[kind] = cpu.get(kind, 0) + cpu_seconds(verifier.process.pid) - before
                gaps[kind] = steps(verifier.text()[at:])
            for operation in ("miss", "plain", "keep", "pointer"):
                alone.setdefault(operation, []).extend(store.run(options.misses, operation, BUNDLE_BYTES))
    verifier.end()
    for kind, values in took.items():
        cell = {"p50_ms": round(median(values), 1), "p99_ms": round(quantile(values, 0.99), 1), "count": len(values),
                "per_s": round(len(values) / walls[kind] * 1000, 1),
                "per_cpu_s": round(len(values) / cpu[kind]) if cpu[kind] else None, "steps_ms": gaps[kind]}
        report.setdefault("misses", {})[kind] = cell
        print(f"miss, content {kind:18} p50 {cell['p50_ms']:6.1f} ms  p99 {cell['p99_ms']:6.1f}  {cell['per_s']:6.1f}/s, "
              f"{cell['per_cpu_s']} per second of the verifier's CPU", flush=True)
        print(f"    {cell['steps_ms']}")
    for operation, values in alone.items():
        cell = {"p50_ms": round(median(values), 1), "p99_ms": round(quantile(values, 0.99), 1), "count": len(values)}
        report.setdefault("store_alone", {})[operation] = cell
        print(f"the store alone, {operation:7} p50 {cell['p50_ms']:6.1f} ms  p99 {cell['p99_ms']:6.1f}", flush=True)
    share = median(alone["miss"]) / median(took["known, 1 at once"])
    report["store_share"] = round(share, 2)
    print(f"of a miss with known content, one at once, the store's own time is {share:.0%}")


def count_requests(fleet, options, program, report):
    """Requests of each role for one miss and one hit that the verifier answers."""
    upstream = fleet.stack.env()["KILN_STACK_S3"]
    roles = ("verifier-1", "executor-1", "agent-1")
    with contextlib.ExitStack() as stack:
        proxies = {role: stack.enter_context(Proxy(upstream)) for role in roles}
        confs = {role: conf_through(fleet, proxies, role) for role in roles}
        verifier = fleet.verifier()
        verifier.kill()
        verifier.config = confs["verifier-1"]
        verifier.start()
        with Driver(fleet, program, confs.get) as driver:
            driver.round(5, 1, "known")
            for mode in ("known", "new", "hit"):
                time.sleep(1)  # what is removed afterwards
                for proxy in proxies.values():
                    proxy.take()
                driver.round(options.misses, 1, mode)
                time.sleep(1)
                for role, proxy in proxies.items():
                    passed = proxy.take()
                    cell = {"requests": {word: round(count / options.misses, 2) for word, count in passed["requests"].items()},
                            "bytes": (passed["up"] + passed["down"]) // options.misses, "connections": passed["connections"]}
                    report.setdefault("requests", {}).setdefault(mode, {})[role] = cell
                    print(f"requests, {mode:5} {role:10} {cell}", flush=True)
        verifier.end()


class Peer:
    """A cache with its objects in a bucket of its own on the fleet's MinIO; `fresh` gives it a machine that knows nothing yet."""

    def __init__(self, bench):
        self.bench, self.machines = bench, 0
        bench.fleet.stack.s3("root").must("PUT", f"/{self.name}")
        self.access, self.secret = (bench.fleet.stack.dir / "s3-root").read_text().split()

    def fresh(self, endpoint):
        self.machines += 1
        self.endpoint, self.dir = endpoint, self.bench.world.path(f"{self.name}-{self.machines}")
        self.dir.mkdir()
        self.start()

    def control(self, *words, check=True):
        done = subprocess.run([self.program, *words], env=clean_environment() | self.environment(), capture_output=True, text=True,
                              timeout=90)
        if check and done.returncode:
            raise SystemExit(f"{self.name} {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def built(self):
        """After a build: how many hits, as it says itself."""


class Sccache(Peer):
    name = "sccache"

    def __init__(self, bench):
        super().__init__(bench)
        # Built without S3 it would take a directory without a word.
        self.program = bench.install("s3", "sccache", "0.19.0", "--locked", "--no-default-features", "--features", "s3")

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.program), "SCCACHE_SERVER_UDS": str(self.dir / "s"), "SCCACHE_IDLE_TIMEOUT": "0",
                "SCCACHE_BUCKET": self.name, "SCCACHE_ENDPOINT": self.endpoint.removeprefix("http://"), "SCCACHE_S3_USE_SSL": "false",
                "SCCACHE_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}

    def start(self):
        self.control("--start-server")

    def built(self):
        stats = json.loads(self.control("--show-stats", "--stats-format", "json"))
        if not stats["cache_location"].startswith("s3"):
            raise SystemExit(f"sccache does not use S3 but {stats['cache_location']}")
        counts = stats["stats"]
        return {"hits": sum(counts["cache_hits"]["counts"].values()), "misses": sum(counts["cache_misses"]["counts"].values()),
                "refused": sum(counts["not_cached"].values()) + counts["requests_not_compile"]}

    def stop(self):
        self.control("--stop-server", check=False)


class Kache(Peer):
    name = "kache"

    def __init__(self, bench):
        super().__init__(bench)
        self.program = bench.install("", "kache", "2.0.0")

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.program), "KACHE_CONFIG": str(self.dir / "kache.toml"), "KACHE_HOST_CONFIG": "",
                "KACHE_CACHE_DIR": str(self.dir / "store"), "KACHE_RUNTIME_DIR": str(self.dir / "run"),
                "KACHE_S3_ACCESS_KEY": self.access, "KACHE_S3_SECRET_KEY": self.secret, "KACHE_SEED_NEW_TARGETS": "0",
                "KACHE_ADAPTIVE_INCREMENTAL": "0", "KACHE_SEED_INCREMENTAL": "0", "KACHE_BUILD_SCRIPT_CACHE": "0"}

    def start(self):
        (self.dir / "kache.toml").write_text(f'[cache.remote]\ntype = "s3"\nbucket = "{self.name}"\nendpoint = "{self.endpoint}"\n'
                                             'region = "us-east-1"\n')
        self.control("daemon", "start")

    def built(self):
        report = self.dir / "report.json"
        self.control("stats", "--full", "--last-build", "--format", "json", "--output", str(report), check=False)
        if not report.exists():
            return None
        return {key: value for key, value in json.loads(report.read_text()).get("summary", {}).items() if isinstance(value, int)}

    def stop(self):
        self.control("daemon", "stop", check=False)


class Kiln:
    """A fresh agent of the fleet; its hints are those of the build that filled the vault, or none."""

    def __init__(self, bench, name="kiln", hints=True):
        self.bench, self.name, self.hints, self.machines, self.agent = bench, name, hints, 0, None
        self.program = bench.world.program("kiln")

    def fresh(self, endpoint):
        fleet = self.bench.fleet
        self.machines += 1
        self.bench.set_hints(self.hints)
        text = fleet.stack.conf("agent-2").read_text().replace(fleet.stack.env()["KILN_STACK_S3"], endpoint)
        self.agent = self.bench.world.agent(f"{self.name}-{self.machines}", settings=text)

    def environment(self):
        return {"RUSTC_WRAPPER": self.program, "KILN_DIR": str(self.agent.dir)}

    def built(self):
        stats = self.agent.stats()
        return {key: stats[key] for key in ("requests", "hits", "misses", "executions", "local")}

    def stop(self):
        self.agent.stop()


class Hits:
    def __init__(self, fleet, options):
        self.fleet, self.world, self.options, self.hints = fleet, fleet.world, options, {}
        source = kilntest.REAL / "service"
        self.one, self.two = self.world.copy_project(source, "one/service"), self.world.copy_project(source, "two/other/service")
        subprocess.run(["cargo", "fetch", "--locked"], cwd=self.one, check=True, capture_output=True)

    def install(self, below, name, version, *words):
        root = pathlib.Path(self.options.peers).resolve() / below
        if not (root / "bin" / name).exists():
            print(f"installing {name} {version} (several minutes)", flush=True)
            subprocess.run(["cargo", "install", name, "--version", version, *words, "--root", root], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return root / "bin" / name

    def hint_keys(self):
        listing = self.fleet.stack.s3("root").request("GET", "/kiln-quarantine", query={"list-type": "2", "prefix": "in/red/hints/"})
        return [part.split("</Key>")[0] for part in listing.body.decode().split("<Key>")[1:]]

    def keep_hints(self):
        kilntest.wait_for(self.hint_keys, 15, "the filling agent leaves its hints")
        s3 = self.fleet.stack.s3("root")
        self.hints = {key: s3.must("GET", f"/kiln-quarantine/{key}").body for key in self.hint_keys()}

    def set_hints(self, wanted):
        s3 = self.fleet.stack.s3("root")
        for key in self.hint_keys():
            s3.must("DELETE", f"/kiln-quarantine/{key}")
        for key, body in self.hints.items() if wanted else ():
            s3.must("PUT", f"/kiln-quarantine/{key}", body=body)

    def build(self, arm, checkout):
        target = self.world.path("target") / (arm.name if arm else "plain")
        shutil.rmtree(target, ignore_errors=True)
        begin = time.monotonic()
        done = subprocess.run(["cargo", "build", "--locked", "--offline", "--target-dir", target], cwd=checkout, capture_output=True,
                              env=clean_environment() | (arm.environment() if arm else {}), text=True)
        took = time.monotonic() - begin
        if done.returncode:
            raise SystemExit(f"{arm.name if arm else 'plain'} failed:\n{done.stderr[-2000:]}")
        return took, sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def measure_hits(fleet, options, report):
    bench, upstream = Hits(fleet, options), fleet.stack.env()["KILN_STACK_S3"]
    fleet.verifier()
    fleet.executor()
    left_out = options.without.split(",")
    arms = [Kiln(bench), Kiln(bench, "kiln, no hints", hints=False)]
    arms += [kind(bench) for kind in (Sccache, Kache) if kind.name not in left_out]
    plain, outputs = bench.build(None, bench.one)
    filler = fleet.agent("agent-1")
    fill = Kiln(bench, "filler")
    fill.agent = filler
    cold = {"plain": plain, "kiln": bench.build(fill, bench.one)[0]}
    print(f"filled: {fill.built()}", flush=True)
    bench.keep_hints()
    filler.stop()
    for arm in arms[2:]:
        arm.fresh(upstream)
        cold[arm.name] = bench.build(arm, bench.one)[0]
        arm.stop()
    took, passed, told = {}, {}, {}
    with Proxy(upstream, 20) as proxy:
        for _ in range(options.rounds):
            for way, endpoint in (("direct", upstream), ("20 ms away", f"http://127.0.0.1:{proxy.port}")):
                for arm in arms:
                    arm.fresh(endpoint)
                    proxy.take()
                    try:
                        took.setdefault((way, arm.name), []).append(bench.build(arm, bench.two)[0])
                        passed[way, arm.name], told[way, arm.name] = proxy.take(), arm.built()
                    finally:
                        arm.stop()
    report["hits"] = {"cold_s": {name: round(value, 2) for name, value in cold.items()}, "outputs_bytes": outputs}
    print(f"cold: {report['hits']['cold_s']}; {outputs / 1e6:.0f} MB in the target directory")
    for (way, name), values in took.items():
        base = median(took[way, "kiln"])
        cell = {"median_s": round(median(values), 3), "all_s": [round(value, 3) for value in values],
                "to_kiln": round(median(values) / base, 2), "told": told[way, name]}
        if way != "direct":
            cell["passed"] = passed[way, name]
            cell["bytes_to_outputs"] = round((cell["passed"]["up"] + cell["passed"]["down"]) / outputs, 3)
        report["hits"].setdefault(way, {})[name] = cell
        print(f"hit from an empty L0, {way:10} {name:15} median {cell['median_s']:7.2f} s  {cell['to_kiln']:5.2f} x kiln  {cell['told']}"
              + (f"  {cell['passed']}, {cell['bytes_to_outputs']} of the outputs' bytes" if way != "direct" else ""), flush=True)


def build_driver(build):
    subprocess.run(["cmake", "--build", build, "--target", "kiln-bench-miss", "kiln-bench-store"], check=True, stdout=subprocess.DEVNULL)
    return build / "tests" / "bench" / "kiln-bench-miss"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--misses", type=int, default=100)
    parser.add_argument("--peers", default=str(pathlib.Path.home() / ".cache" / "kiln-bench-peers"))
    parser.add_argument("--json", default="bench-fleet.json")
    parser.add_argument("--without", default="")
    parser.add_argument("--only", default="misses,requests,hits")
    parser.add_argument("--place", default=None)
    options = parser.parse_args()
    if options.place:
        os.environ["TMPDIR"] = tempfile.tempdir = options.place
    build = pathlib.Path(options.build).resolve()
    program, report = build_driver(build), {}
    world = kilntest.World(build, True)
    try:
        with Fleet(world) as fleet:
            if "misses" in options.only:
                measure_misses(fleet, options, program, report)
            if "requests" in options.only:
                count_requests(fleet, options, program, report)
            if "hits" in options.only:
                measure_hits(fleet, options, report)
    finally:
        world.close()
    pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
