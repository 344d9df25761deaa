"""A stack of its own for a test: real Kafka and MinIO through ops/stack, gone again at the end.

    with Stack(build) as stack:                 # build: the directory with kiln-admin
        conf = stack.conf("agent-1")            # kiln.conf of that role
        stack.stop("kafka", kill=True); stack.start("kafka")
"""

import pathlib
import subprocess
import sys
import tempfile
import traceback

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "ops" / "stack.d"))

from s3 import Client  # noqa: E402


class Stack:
    def __init__(self, build, *options):
        self.build = pathlib.Path(build).absolute()
        self.options = list(options)  # further ones of `ops/stack up`
        self.dir = None

    def call(self, action, *arguments, accept=(0,)):
        done = subprocess.run([TOP / "ops" / "stack", action, "--dir", self.dir, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode not in accept:
            raise AssertionError(f"ops/stack {action}: exit {done.returncode}\n{done.stdout}")
        return done

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kiln-stack-"))
        try:
            self.call("up", "--build", self.build, *self.options)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.call("down")

    def env(self):
        return dict(line.split("=", 1) for line in (self.dir / "env").read_text().splitlines())

    def role(self, name):
        return self.dir / "roles" / name

    def conf(self, name):
        return self.role(name) / "kiln.conf"

    def healthy(self):
        return self.call("status", accept=(0, 1)).returncode == 0

    def stop(self, server, kill=False):
        self.call("stop", server, *(["--kill"] if kill else []))

    def start(self, server):
        self.call("start", server)

    def restart(self, server, kill=False):
        self.call("restart", server, *(["--kill"] if kill else []))

    def s3(self, name):
        """A signed S3 client with that principal's key; "root" for the storage's own root user."""
        file = self.dir / "s3-root" if name == "root" else self.role(name) / "s3.key"
        access, secret = file.read_text().split()
        env = self.env()
        return Client(env["KILN_STACK_S3"], access, secret, ca=env["KILN_STACK_CA"])

    def program(self):
        return next((self.build / place for place in ("ops/admin/kiln-admin", "bin/kiln-admin") if (self.build / place).is_file()))

    def admin_offline(self, *arguments, accept=(0,)):
        """kiln-admin without a configuration of its own."""
        words = list(map(str, arguments))
        done = subprocess.run([self.program(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode not in accept:
            raise AssertionError(f"kiln-admin {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def admin_as(self, name, *arguments, accept=(0,)):
        return self.admin_offline(*arguments, "--config", self.conf(name), accept=accept)

    def admin(self, *arguments, accept=(0,)):
        """kiln-admin with the operator's configuration."""
        return self.admin_as("operator", *arguments, accept=accept)

    def roots(self):
        """What --roots takes."""
        return ",".join(str(self.dir / "roots" / name) for name in ("root-1", "root-2"))


def run_cases(module, *arguments):
    """Calls each test_* function of a module with the arguments; prints and counts; the exit code."""
    passed = failed = 0
    for name, case in list(vars(module).items()):
        if not name.startswith("test_") or not callable(case):
            continue
        try:
            case(*arguments)
            passed += 1
            print(f"ok       {name[5:].replace('_', ' ')}", flush=True)
        except AssertionError as problem:
            failed += 1
            print(f"FAILED   {name[5:].replace('_', ' ')}: {problem}", flush=True)
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
