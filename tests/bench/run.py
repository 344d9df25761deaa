"""Kiln against plain cargo, sccache 0.19, kache 2.0 and the floor: same crates, one run, interleaved. Prints medians and ratios,
writes JSON. tests/bench/run.py --build DIR [--rounds N] [--peers DIR] [--json FILE] [--without sccache,kache]

Cold: empty cache, empty target. Warm: filled cache, empty target, in the same checkout and in another one. The peers run as their own
documentation recommends for a fair comparison: --target-dir on the command line, kache without seeding target directories
and without caching build-script runs (which no other arm does).
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PROJECT = TOP / "tests" / "real" / "service"
PEERS = {"sccache": "0.19.0", "kache": "2.0.0"}


def clean_environment():
    dropped = ("CARGO_INC", "CARGO_TARGET", "RUSTC", "KILN", "KACHE", "SCCACHE", "CI", "GITHUB", "GITLAB")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)} | {
        "CARGO_INCREMENTAL": "0", "CARGO_TERM_COLOR": "never"}


class Arm:
    """One way to build. `fresh()` empties its cache, `start()`/`stop()` its daemon."""

    name = "plain"

    def __init__(self, bench):
        self.bench = bench
        self.cache = bench.work / f"cache-{self.name}"

    def environment(self):
        return {}

    def start(self):
        self.cache.mkdir(parents=True, exist_ok=True)

    def stop(self):
        pass

    def fresh(self):
        self.stop()
        shutil.rmtree(self.cache, ignore_errors=True)
        self.start()


class Floor(Arm):
    name = "floor"

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.bench.program("kiln-bench-floor")), "FLOOR_DIR": str(self.cache), "FLOOR_MODE": "record"}


class Kiln(Arm):
    name = "kiln"
    process = None

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.bench.bin / "kiln"), "KILN_DIR": str(self.cache)}

    def start(self):
        self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.process = subprocess.Popen([self.bench.bin / "kiln-agent", "--dir", self.cache, "--libexec", self.bench.bin],
                                        env={"PATH": "/usr/bin:/bin", "HOME": str(self.bench.work)}, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while self.run("agent", "status").returncode:
            if time.monotonic() > deadline:
                raise SystemExit("the agent does not answer")
            time.sleep(0.02)

    def run(self, *words):
        return subprocess.run([self.bench.bin / "kiln", *words], env=os.environ | {"KILN_DIR": str(self.cache)},
                              capture_output=True, text=True)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


class Sccache(Arm):
    name = "sccache"

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.bench.peer("sccache")), "SCCACHE_DIR": str(self.cache / "store"),
                "SCCACHE_SERVER_UDS": str(self.bench.work / "scc.sock"), "SCCACHE_IDLE_TIMEOUT": "0",
                "SCCACHE_CACHE_SIZE": "50G"}

    def control(self, option):
        subprocess.run([self.bench.peer("sccache"), option], env=clean_environment() | self.environment(), capture_output=True)

    def start(self):
        super().start()
        self.control("--start-server")

    def stop(self):
        self.control("--stop-server")


class Kache(Arm):
    name = "kache"

    def environment(self):
        return {"RUSTC_WRAPPER": str(self.bench.peer("kache")), "KACHE_CONFIG": str(self.bench.work / "kache.toml"),
                "KACHE_HOST_CONFIG": "", "KACHE_CACHE_DIR": str(self.cache / "store"),
                "KACHE_RUNTIME_DIR": str(self.bench.work / "krun"), "KACHE_SEED_NEW_TARGETS": "0",
                "KACHE_ADAPTIVE_INCREMENTAL": "0", "KACHE_SEED_INCREMENTAL": "0", "KACHE_BUILD_SCRIPT_CACHE": "0"}

    def control(self, word):
        subprocess.run([self.bench.peer("kache"), "daemon", word], env=clean_environment() | self.environment(),
                       capture_output=True, timeout=60)

    def start(self):
        super().start()
        (self.bench.work / "kache.toml").touch()
        self.control("start")

    def stop(self):
        self.control("stop")


class Bench:
    def __init__(self, options):
        self.build = pathlib.Path(options.build).resolve()
        self.peers = pathlib.Path(options.peers).resolve()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="kiln-bench-"))
        self.bin = self.work / "bin"
        self.bin.mkdir()
        for name in ("kiln", "kiln-agent", "kiln-verifier", "kiln-executor", "kiln-run", "kiln-run-docker", "kiln-init",
                     "libkiln-observe.so"):
            shutil.copy2(self.program(name), self.bin / name)
        self.checkouts = {}
        for place in ("one", "two/other"):
            shutil.copytree(PROJECT, self.work / place / "service")
            self.checkouts[place] = self.work / place / "service"

    def program(self, name):
        found = [path for path in self.build.rglob(name) if path.is_file()]
        if name == "kiln-bench-floor" and not found:
            path = self.work / name
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", path, TOP / "tests" / "bench" / "floor.c"], check=True)
            return path
        if not found:
            raise SystemExit(f"{name} is not built in {self.build}")
        return found[0]

    def sandbox(self):
        """What a sandbox costs: a start, and a compile in it, beside the same without."""
        subprocess.run(["cmake", "--build", self.build, "--target", "kiln-bench-start"], check=True, stdout=subprocess.DEVNULL)
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
        done = subprocess.run([self.program("kiln-bench-start"), self.bin / "kiln-run", sysroot], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def peer(self, name):
        return self.peers / "bin" / name

    def install_peers(self, names):
        for name in names:
            if not self.peer(name).exists():
                print(f"installing {name} {PEERS[name]} (several minutes)", flush=True)
                # The lock file that kache ships names a version that cannot be had any more.
                extra = ["--locked", "--no-default-features"] if name == "sccache" else []
                subprocess.run(["cargo", "install", name, "--version", PEERS[name], *extra, "--root", self.peers],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def time_build(self, arm, place):
        target = self.work / "target" / arm.name
        shutil.rmtree(target, ignore_errors=True)
        start = time.monotonic()
        done = subprocess.run(["cargo", "build", "--locked", "--offline", "--target-dir", target], cwd=self.checkouts[place],
                              env=clean_environment() | arm.environment(), capture_output=True, text=True)
        took = time.monotonic() - start
        if done.returncode:
            raise SystemExit(f"{arm.name} failed:\n{done.stderr[-2000:]}")
        return took


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold-rounds", type=int, default=2)
    parser.add_argument("--peers", default=str(pathlib.Path.home() / ".cache" / "kiln-bench-peers"))
    parser.add_argument("--json", default="bench.json")
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    bench = Bench(options)
    left_out = options.without.split(",")
    bench.install_peers([name for name in PEERS if name not in left_out])
    subprocess.run(["cargo", "fetch", "--locked"], cwd=PROJECT, check=True, capture_output=True)
    arms = [kind(bench) for kind in (Arm, Floor, Kiln, Sccache, Kache) if kind.name not in left_out]
    times = {}
    try:
        for _ in range(options.cold_rounds):
            for arm in arms:
                arm.fresh()
                times.setdefault((arm.name, "cold"), []).append(bench.time_build(arm, "one"))
        for _ in range(options.rounds):
            for place, label in (("one", "warm"), ("two/other", "warm, other checkout")):
                for arm in arms:
                    if arm.name != "plain":
                        times.setdefault((arm.name, label), []).append(bench.time_build(arm, place))
        kiln = next(arm for arm in arms if arm.name == "kiln")
        stats = json.loads(kiln.run("stats", "--json").stdout)
        sandbox = bench.sandbox()
    finally:
        for arm in arms:
            arm.stop()
        shutil.rmtree(bench.work, ignore_errors=True)
    report = {}
    for label in ("cold", "warm", "warm, other checkout"):
        base = median(times.get(("kiln", label), []))
        for arm in arms:
            values = times.get((arm.name, label))
            if values:
                report.setdefault(label, {})[arm.name] = {"median_s": round(median(values), 3), "min_s": round(min(values), 3),
                                                          "all_s": [round(v, 3) for v in values],
                                                          "to_kiln": round(median(values) / base, 2)}
                print(f"{label:22} {arm.name:8} median {median(values):7.2f} s  min {min(values):7.2f}  "
                      f"{median(values) / base:6.2f} x kiln")
    report["kiln_hit_median_us"] = stats["hit_median_us"]
    report["kiln_stats"] = {key: stats[key] for key in ("requests", "hits", "misses", "executions", "local", "local_reasons")}
    print(f"a hit inside the agent: {stats['hit_median_us'] / 1000:.2f} ms median; {report['kiln_stats']}")
    report["sandbox"] = sandbox
    print(f"a sandbox: {sandbox['start_ms']} ms to start and end, median, beside {sandbox['rustc_version']['median_ms']} ms of rustc -V; "
          f"a compile in one takes {sandbox['compile_ratio']} x of one outside ({sandbox['compile_ratio_of_minima']} x by the least)")
    pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
