#!/usr/bin/env python3
"""ops/stack itself: two at once, again and again, one server alone, and nothing left. Usage: test_stack.py BUILD"""

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stack import TOP, Stack, run_cases  # noqa: E402


def ports(stack):
    return dict(line.split("=") for line in (stack.dir / "ports").read_text().splitlines())


def processes_of(directory):
    """Every process whose command line names the directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and str(directory).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def test_two_at_once_and_nothing_left(build):
    with Stack(build) as one, Stack(build, "--s3-tls") as other:
        assert not set(ports(one).values()) & set(ports(other).values()), "each has ports of its own"
        assert one.healthy() and other.healthy()
        one.s3("operator").must("PUT", "/kiln-vault/trust/mine", body=b"one")
        assert other.env()["KILN_STACK_S3"].startswith("https://")
        assert other.s3("operator").request("GET", "/kiln-vault/trust/mine").status == 404, "they share nothing"
        assert other.admin("trust", "show").stdout.startswith("version 1"), "by https"
        directories, taken = (one.dir, other.dir), [*ports(one).values(), *ports(other).values()]
        assert len(processes_of(one.dir)) == 2, processes_of(one.dir)
    for directory in directories:
        assert not directory.exists() and not processes_of(directory), directory
    assert not any(map(listens, taken))


def test_up_again_changes_nothing(build):
    with Stack(build) as stack:
        before = {path: path.read_bytes() for path in stack.dir.rglob("*") if path.is_file() and "data" not in path.parts
                  and path.suffix not in (".log", ".process") and path.name != "lock"}
        began = time.monotonic()
        stack.call("up", "--build", build)
        assert time.monotonic() - began < 3
        for path, content in before.items():
            assert path.read_bytes() == content, path
        stack.call("down")
        stack.call("down")  # there is none any more


def test_servers_alone(build):
    with Stack(build) as stack:
        version = stack.s3("operator").must("PUT", "/kiln-vault/trust/kept", body=b"kept").headers["x-amz-version-id"]
        for server, port in (("kafka", "kafka"), ("minio", "s3")):
            for kill in (False, True):
                stack.stop(server, kill=kill)
                assert not stack.healthy() and not listens(ports(stack)[port])
                assert f"{server}: not running" in stack.call("status", accept=(1,)).stdout
                stack.start(server)
                assert stack.healthy() and listens(ports(stack)[port])
            stack.restart(server, kill=True)
            assert stack.healthy()
        assert stack.s3("reader").must("GET", "/kiln-vault/trust/kept", {"versionId": version}).body == b"kept"
        assert '"topics_made": 0' in stack.admin("init", "--json").stdout, "topics are there as before"
        # One that died by itself is started by the next `up`.
        os.kill(processes_of(stack.dir / "minio")[0], 9)
        stack.call("up", "--build", build)
        assert stack.healthy()


def test_given_ports(build):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--s3-port", "--kafka-port"):
            stack = Stack(build, option, str(port))
            try:
                with stack:
                    raise AssertionError("a taken port was given")
            except AssertionError as problem:
                assert "its port is taken" in str(problem), problem
            assert not stack.dir.exists() and not processes_of(stack.dir)
    with Stack(build, "--s3-port", str(port)) as stack:
        assert ports(stack)["s3"] == str(port)


def test_other_directories_are_left_alone(build):
    with tempfile.TemporaryDirectory() as directory:
        mine = pathlib.Path(directory) / "mine"
        mine.write_text("mine")
        for action in (["up", "--build", str(build)], ["down"]):
            done = subprocess.run([TOP / "ops" / "stack", action[0], "--dir", directory, *action[1:]], capture_output=True, text=True)
            assert done.returncode == 1 and "stack" in done.stderr, done
        assert mine.read_text() == "mine"
        assert subprocess.run([TOP / "ops" / "stack", "status", "--dir", directory], capture_output=True).returncode == 1


def test_as_an_ordinary_user(build):
    if os.geteuid() != 0:
        return  # then all the others were it
    user = pwd.getpwnam("nobody")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kiln-stack-user-"))
    try:
        shutil.copytree(TOP / "ops", directory / "source" / "ops", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "cache").mkdir()
        sys.path.insert(0, str(TOP / "ops" / "stack.d"))
        import install
        jars, minio = install.installed()
        for path in (jars, minio):  # they may lie where nobody may look
            (shutil.copytree if path.is_dir() else shutil.copy)(path, directory / "cache" / path.name)
        shutil.copy(Stack(build).program(), directory / "kiln-admin")
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, user.pw_uid, user.pw_gid)
        environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "KILN_STACK_CACHE": str(directory / "cache")}
        for action in (["up", "--build", str(directory)], ["status"], ["down"]):
            done = subprocess.run(["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                                   directory / "source" / "ops" / "stack", action[0], "--dir", directory / "stack", *action[1:]],
                                  capture_output=True, text=True, env=environment, cwd=directory)
            assert done.returncode == 0, f"{action}: {done.stdout}{done.stderr}"
        assert not processes_of(directory / "stack")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(run_cases(sys.modules["__main__"], pathlib.Path(sys.argv[1]).absolute()))
