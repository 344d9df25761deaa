"""The fleet's bench, on real Kafka and MinIO of its own (ops/stack): misses without a compiler, hits from an empty L0 against
sccache 0.19 and kache 2.0 on the same MinIO, the verifier's decisions per second, requests and bytes. tests/bench/fleet.py
--build DIR [--rounds N] [--misses N] [--peers DIR] [--json FILE] [--without sccache,kache] [--only misses,hits]

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
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "e2e")]

import kilntest  # noqa: E402
from delay_proxy import Proxy  # noqa: E402
from kilnfleet import Fleet  # noqa: E402

STEPS = ("submitted", "wanted", "uploaded", "dispatched", "judged", "stored", "answered")


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")


def median(values):
    return quantile(values, 0.5)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    took, walls, cpu, gaps = {}, {}, {}, {}
    with Driver(fleet, program) as driver:
        driver.round(10, 2, "known")  # connections, credits
        for _ in range(options.rounds):
            for mode, threads in kinds:
                at, before = len(verifier.text()), cpu_seconds(verifier.process.pid)
                done = driver.round(options.misses, threads, mode)
                kind = f"{mode}, {threads} at once"
                took.setdefault(kind, []).extend(done["ms"])
                walls[kind] = walls.get(kind, 0) + done["wall_ms"]
                cpu[kind] = cpu.get(kind, 0) + cpu_seconds(verifier.process.pid) - before
                gaps[kind] = steps(verifier.text()[at:])
    verifier.end()
    for kind, values in took.items():
        cell = {"p50_ms": round(median(values), 1), "p99_ms": round(quantile(values, 0.99), 1), "count": len(values),
                "per_s": round(len(values) / walls[kind] * 1000, 1),
                "per_cpu_s": round(len(values) / cpu[kind]) if cpu[kind] else None, "steps_ms": gaps[kind]}
        report.setdefault("misses", {})[kind] = cell
        print(f"miss, content {kind:18} p50 {cell['p50_ms']:6.1f} ms  p99 {cell['p99_ms']:6.1f}  {cell['per_s']:6.1f}/s, "
              f"{cell['per_cpu_s']} per second of the verifier's CPU", flush=True)
        print(f"    {cell['steps_ms']}")


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


def build_driver(build):
    subprocess.run(["cmake", "--build", build, "--target", "kiln-bench-miss"], check=True, stdout=subprocess.DEVNULL)
    return build / "tests" / "bench" / "kiln-bench-miss"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--misses", type=int, default=100)
    parser.add_argument("--peers", default=str(pathlib.Path.home() / ".cache" / "kiln-bench-peers"))
    parser.add_argument("--json", default="bench-fleet.json")
    parser.add_argument("--without", default="")
    parser.add_argument("--only", default="misses,requests")
    options = parser.parse_args()
    build = pathlib.Path(options.build).resolve()
    program, report = build_driver(build), {}
    world = kilntest.World(build, True)
    try:
        with Fleet(world) as fleet:
            if "misses" in options.only:
                measure_misses(fleet, options, program, report)
            if "requests" in options.only:
                count_requests(fleet, options, program, report)
    finally:
        world.close()
    pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
