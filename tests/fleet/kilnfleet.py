"""A whole fleet for a case: real Kafka and MinIO (stack.py), verifiers, executors and agents of the stack's principals.

Agents, cargo builds and comparisons are those of tests/e2e/kilntest.py.
"""

import atexit
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import kilntest  # noqa: E402
from stack import Stack  # noqa: E402


class Member:
    """A verifier or executor of the fleet: its program, directory and log."""

    def __init__(self, fleet, name, *options, more="", libexec=None, prefix=()):
        self.fleet, self.name, self.prefix = fleet, name, list(prefix)
        self.program = "kiln-verifier" if name.startswith("verifier") else "kiln-executor"
        self.dir = fleet.world.path(name)
        self.dir.mkdir(exist_ok=True, mode=0o700)
        self.options = list(options)
        if self.program == "kiln-executor":
            self.options += ["--libexec", str(libexec or fleet.world.libexec)]
        self.config = fleet.stack.conf(name)
        if more:  # settings beside those of its role
            text, self.config = self.config.read_text() + more, fleet.world.path(name + ".conf")
            self.config.write_text(text)
            self.config.chmod(0o600)
        self.log = fleet.world.path(name + ".log")
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.fleet.world.program(self.program), "--config", str(self.config), "--dir", str(self.dir),
                 *self.options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin"})
        return self

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.runs():
            self.process.kill()
        self.process.wait()

    def end(self, seconds=20):
        """Ends it as an operator does; its exit code."""
        if self.runs():
            self.process.terminate()
        return self.process.wait(seconds)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def says(self, pattern):
        return re.findall(pattern, self.text())


class Fleet:
    """with Fleet(world) as fleet: fleet.verifier(); fleet.executor(); agent = fleet.agent("agent-1")"""

    published = None  # what the first stack's server keeps of the toolchain

    def __init__(self, world, *options, toolchain=True):
        self.world, self.stack, self.toolchain = world, Stack(world.build, *options), toolchain
        self.members = []

    def __enter__(self):
        self.stack.__enter__()
        try:
            if self.toolchain:
                self.publish()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for agent in self.world.agents:  # they go first: what they wait for ends with them
            with contextlib.suppress(Exception):
                agent.stop()
        for member in self.members:
            with contextlib.suppress(Exception):
                member.kill()
        self.stack.__exit__(None, None, None)

    def publish(self):
        """As an operator types it: kiln finds kiln-admin beside itself. A gigabyte each time: the next stack of this process is given
        links to the server's own files of it."""
        place = pathlib.Path(self.stack.env()["KILN_STACK_S3_DATA"]) / "kiln-vault" / "toolchain"
        if self.published:
            shutil.copytree(self.published, place, copy_function=os.link)
            return
        shutil.copy2(self.stack.program(), self.world.libexec)
        subprocess.run([self.world.program("kiln"), "toolchain", "publish", "--config", self.stack.conf("operator")], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        Fleet.published = pathlib.Path(tempfile.mkdtemp(prefix="kiln-published-")) / "toolchain"
        atexit.register(shutil.rmtree, Fleet.published.parent)
        shutil.copytree(place, Fleet.published, copy_function=os.link)

    def member(self, name, *options, **more):
        member = Member(self, name, *options, **more)
        self.members.append(member)
        return member.start()

    def verifier(self, name="verifier-1", **more):
        return self.member(name, **more)

    def executor(self, name="executor-1", slots=2, **more):
        return self.member(name, "--slots", str(slots), **more)

    def crew(self):
        """Two verifiers, two executors."""
        for number in (1, 2):
            self.verifier(f"verifier-{number}")
            self.executor(f"executor-{number}", slots=1)

    def agent(self, name, more="", dir=None, **options):
        """An agent with the role's configuration, and perhaps more of it."""
        text = self.stack.conf(name).read_text()
        return self.world.agent(dir or name, settings=text + more, **options)


def why(world, fleet):
    """The ends of all logs, for a case that failed."""
    parts = []
    for member in fleet.members:
        parts.append(f"--- {member.name}\n" + member.text()[-2500:])
    for agent in world.agents:
        parts.append(f"--- {agent.dir.name}\n" + agent.log_tail())
    return "\n".join(parts)


def main(module, argv):
    """Runs the case_* functions of a module: BUILD [WORD]. Exit code for ctest."""
    kilntest.end_cleanly()
    build, word = argv[1], argv[2] if len(argv) > 2 else ""
    passed = failed = skipped = 0
    for name, function in list(vars(module).items()):
        wanted = name.startswith("case_") or (name.startswith("full_") and (word or "KILN_FULL" in os.environ))
        if not wanted or word not in name:
            continue
        outcome, text = run_case(build, function)
        print(f"{outcome:8} {name[5:].replace('_', ' ')}", flush=True)
        if text:
            print(text, flush=True)
        passed += outcome == "ok"
        failed += outcome == "FAILED"
        skipped += outcome == "skipped"
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed + skipped == 0 else 0


def run_case(build, function):
    import traceback
    world = kilntest.World(build, "KILN_FULL" in os.environ)
    outcome, text = "ok", ""
    try:
        function(world)
    except kilntest.Skip as missing:
        outcome, text = "skipped", f"needs {missing}"
    except Exception:  # a failing case must not end the run
        outcome, text = "FAILED", traceback.format_exc()
    except BaseException:
        world.close()
        raise
    left = world.close()
    if left and outcome == "ok":
        outcome, text = "FAILED", "left behind:\n" + "\n".join(left)
    return outcome, text
