"""What the end-to-end cases share: an agent of their own, cargo builds through it, and comparisons of what came out.

A case is a function `case_NAME(world)` in a `cases_*.py` file. It raises (assert) to fail and skip() to skip. World makes
scratch directories and agents and removes all of it, also when the case fails.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REAL = HERE.parent / "real"


class Skip(Exception):
    """Something that the case needs is missing; the text names it."""


def skip(missing):
    raise Skip(missing)


def wait_for(condition, seconds, what):
    """The value of condition() as soon as it is true; fails with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class Agent:
    """A kiln-agent in a directory of its own."""

    def __init__(self, world, name="agent", user=None, settings="", dir=None, system=False, prefix=()):
        self.world = world
        self.dir = pathlib.Path(dir or world.path(name))
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.dir.chmod(0o755 if system else 0o700)
        self.user = user
        self.system = system
        self.prefix = list(prefix)
        self.config = world.path(name + ".conf")
        self.config.write_text(settings)
        self.config.chmod(0o644)
        self.process = None

    def start(self):
        command = [self.world.program("kiln-agent"), "--dir", str(self.dir), "--libexec", str(self.world.libexec),
                   "--config", str(self.config)] + (["--system"] if self.system else [])
        if self.user is not None:
            os.chown(self.dir, self.user, self.user)
            os.chown(self.config, self.user, self.user)
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        command = [*self.prefix, *command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True,
                                        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.world.root)})
        wait_for(lambda: self.answers() or self.process.poll() is not None, 20, "the agent answers")
        if self.process.poll() is not None:
            raise AssertionError(f"kiln-agent ended: {self.process.stderr.read()}\n{self.log_tail()}")
        return self

    def answers(self):
        return self.command("agent", "status").returncode == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("the agent did not end within 20 s of SIGTERM")
        if self.process:
            self.process.stderr.close()
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.process = None

    def command(self, *words):
        prefix = [] if self.user is None else ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return subprocess.run([*prefix, self.world.program("kiln"), *words], capture_output=True, text=True, timeout=120,
                              env={"PATH": os.environ["PATH"], "KILN_DIR": str(self.dir)})

    def stats(self):
        answer = self.command("stats", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def status(self):
        return json.loads(self.command("agent", "status", "--json").stdout)["agent"]

    def child(self, name):
        return self.status()[name]

    def log_tail(self):
        log = self.dir / "agent.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "(no log)"


class Delta:
    """What the counters of an agent did during a `with` block."""

    def __init__(self, agent):
        self.agent = agent

    def __enter__(self):
        self.before = self.agent.stats()
        return self

    def __exit__(self, *_):
        after = self.agent.stats()
        for key in ("requests", "hits", "misses", "executions", "local", "passed_through", "errors", "corrupt"):
            setattr(self, key, after[key] - self.before[key])
        old = self.before["local_reasons"]
        self.reasons = {word: count - old.get(word, 0) for word, count in after["local_reasons"].items()
                        if count != old.get(word, 0)}
        self.last = after.get("local_last", {})

    def __str__(self):
        return (f"requests {self.requests} hits {self.hits} misses {self.misses} executions {self.executions} "
                f"local {self.local} {self.reasons} passed {self.passed_through} errors {self.errors} {self.last}")


def end_cleanly():
    """A test that is told to end takes what it started along: SIGTERM unwinds it like a failure."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class World:
    def __init__(self, build, full):
        self.build = pathlib.Path(build).resolve()
        self.full = full
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="kiln-e2e-"))
        self.root.chmod(0o755)
        self.libexec = self.root / "bin"
        self.agents = []
        self._stage_programs()

    def _stage_programs(self):
        """The programs side by side, as they are installed."""
        self.libexec.mkdir()
        for name in ("kiln", "kiln-agent", "kiln-verifier", "kiln-executor", "kiln-run", "kiln-run-docker", "kiln-init",
                     "libkiln-observe.so"):
            found = next(self.build.rglob(name), None)
            assert found, f"{name} is not built in {self.build}"
            shutil.copy2(found, self.libexec / name)

    def path(self, name):
        return self.root / name

    def program(self, name):
        return str(self.libexec / name)

    def agent(self, *arguments, **options):
        agent = Agent(self, *arguments, **options)
        self.agents.append(agent)
        return agent.start()

    def cargo(self, project, agent, *words, target=None, cargo_home=None, env=None, check=True, wrapper=True, timeout=900,
              prefix=()):
        """Runs cargo in a project, behind a prefix; through Kiln unless wrapper is False or agent is None."""
        variables = {key: value for key, value in os.environ.items()
                     if not key.startswith(("CARGO", "RUSTC", "KILN", "RUST_LOG"))}
        variables.update({"CARGO_INCREMENTAL": "0", "CARGO_TERM_COLOR": "never"})
        if wrapper and agent is not None:
            variables["RUSTC_WRAPPER"] = self.program("kiln")
            variables["KILN_DIR"] = str(agent.dir)
        if cargo_home:
            variables["CARGO_HOME"] = str(cargo_home)
        variables.update(env or {})
        command = [*prefix, "cargo", *words]
        if target:
            at = command.index("--") if "--" in command else len(command)
            command[at:at] = ["--target-dir", str(target)]
        done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            tail = agent.log_tail() if agent is not None else ""
            raise AssertionError(f"cargo {' '.join(words)} failed ({done.returncode}):\n{done.stderr[-3000:]}\n{tail}")
        return done

    def copy_project(self, source, name):
        target = self.path(name)
        shutil.copytree(source, target, symlinks=True)
        return target

    def cargo_home(self, name):
        """Another CARGO_HOME with the same registry contents: a copy, so that every path and inode differs."""
        home = self.path(name)
        source = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
        (home / "registry").mkdir(parents=True)
        for part in ("index", "cache"):
            if (source / "registry" / part).exists():
                subprocess.run(["cp", "-a", str(source / "registry" / part), str(home / "registry" / part)], check=True)
        return home

    def close(self):
        problems = []
        for agent in self.agents:
            with contextlib.suppress(Exception):
                if agent.process and agent.process.poll() is None:
                    agent.process.terminate()
                    try:
                        agent.process.wait(20)
                    except subprocess.TimeoutExpired:
                        agent.process.kill()
                        agent.process.wait()
        problems += self.leftovers()
        subprocess.run(["chmod", "-R", "u+rwx", str(self.root)], capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)
        return problems

    def leftovers(self):
        """Processes and mounts that belong to this world, after its agents ended."""
        def find():
            found = []
            for entry in pathlib.Path("/proc").iterdir():
                if not entry.name.isdigit():
                    continue
                try:
                    command = (entry / "cmdline").read_bytes()
                    exe = os.readlink(entry / "exe")
                except OSError:
                    continue
                if str(self.root) in exe or (str(self.root).encode() in command and b"kiln" in command.split(b"\0")[0]):
                    found.append(f"process {entry.name}: {exe}")
            found += [f"mount: {line}" for line in open("/proc/mounts") if str(self.root) in line]
            return found

        deadline = time.monotonic() + 5
        found = find()
        while found and time.monotonic() < deadline:
            time.sleep(0.05)
            found = find()
        for item in found:
            if item.startswith("process "):
                with contextlib.suppress(OSError):
                    os.kill(int(item.split()[1].rstrip(":")), signal.SIGKILL)
        return found


def artifacts(target):
    """Name -> digest of everything that a build leaves that is compared bit for bit."""
    result = {}
    for path in sorted(pathlib.Path(target).rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        relative = str(path.relative_to(target))
        executable = os.access(path, os.X_OK) and path.suffix not in (".so", ".d")
        if path.suffix in (".rlib", ".rmeta", ".so", ".a") or executable:
            if "/incremental/" not in relative and "/out/" not in relative:
                result[relative] = digest(path)
    return result


def assert_same_artifacts(first, second, path_values=()):
    """All equal, but for executables that hold their own checkout's path as a value: named by the start of their name."""
    assert first, "the first build left nothing"
    missing = sorted(set(first) ^ set(second))
    assert not missing, f"only in one build: {missing[:5]}"
    differ = [name for name in first if first[name] != second[name]
              and not pathlib.Path(name).name.startswith(tuple(path_values) or ("\0",))]
    assert not differ, f"{len(differ)} of {len(first)} differ: {differ[:5]}"
