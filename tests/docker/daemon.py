#!/usr/bin/env python3
"""Runs Debian's dockerd by itself for tests: own data, own containerd, own socket, no network, no firewall rules.

As a program: `daemon.py` prints the socket's path when the daemon answers, and takes everything down when its standard input
ends, so also when a test dies. Lines on standard input: "kill" (-9, containerd too), "start", "stop" and "continue" (signals),
"retag" (our images' names are another image's then) and "forget" (all images), each answered by "ok"; "containers" by how many there are, in whatever state. Exit status 77 when this host cannot run it, with the reason on standard error.
"""

import http.client
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

START_SECONDS = 40
END_SECONDS = 15


class Missing(Exception):
    """What this host lacks."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _processes(needle):
    """Processes with `needle` on their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Daemon:
    def __init__(self):
        if os.geteuid() != 0:
            raise Missing("dockerd needs root")
        for program in ("dockerd", "containerd", "runc"):
            if not shutil.which(program):
                raise Missing(f"{program} is not installed (Debian: docker.io)")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kiln-docker-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.socket = str(self.dir / "docker.sock")
        self.process = None

    def start(self):
        for name in ("data", "exec"):
            (self.dir / name).mkdir(exist_ok=True)
        for stale in (self.dir / "pid", self.dir / "exec/containerd/containerd.pid"):
            stale.unlink(missing_ok=True)
        (self.dir / "daemon.json").write_text("{}")  # the host's own is for the host's own
        self.process = subprocess.Popen(
            ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
             "--storage-driver=overlay2", f"--data-root={self.dir}/data", f"--exec-root={self.dir}/exec",
             f"--pidfile={self.dir}/pid", f"--host=unix://{self.socket}", f"--config-file={self.dir}/daemon.json"],
            stdin=subprocess.DEVNULL, stdout=open(self.dir / "log", "ab"), stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                # An ordinary user of the tests is in no docker group.
                os.chmod(self.socket, 0o666)
                if self.ask("GET", "/_ping")[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise Missing(f"dockerd does not run here: {self._last_words()}")
            if time.monotonic() > deadline:
                raise Missing(f"dockerd does not answer here: {self._last_words()}")
            time.sleep(0.05)

    def _last_words(self):
        lines = (self.dir / "log").read_text(errors="replace").splitlines()
        return lines[-1][-300:] if lines else "it said nothing"

    def ask(self, method, path, timeout=10, body=None):
        connection = _Unix(self.socket, timeout)
        connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def containers(self):
        return len(json.loads(self.ask("GET", "/containers/json?all=1")[1]))

    def retag(self):
        """Gives our image's name to another image."""
        other = io.BytesIO()
        with tarfile.open(fileobj=other, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("other"))
        for image in json.loads(self.ask("GET", "/images/json")[1]):
            for name in image["RepoTags"] or []:
                repository, tag = name.split(":")
                self.ask("POST", f"/images/create?fromSrc=-&repo={repository}&tag={tag}", body=other.getvalue())

    def forget(self):
        for image in json.loads(self.ask("GET", "/images/json")[1]):
            self.ask("DELETE", f"/images/{image['Id']}?force=1")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Dockerd and its containerd at once, as the kernel's OOM killer might; the shims of containers live on."""
        contained = [pid for pid in _processes(f"{self.dir}/exec/containerd/containerd.toml") if pid != self.process.pid]
        self.process.kill()
        self.process.wait()
        for pid in contained:
            self._end(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_SECONDS
        while any(map(self._lives, contained)) and time.monotonic() < deadline:
            time.sleep(0.01)

    @staticmethod
    def _lives(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    @staticmethod
    def _end(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def _end_processes(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        deadline = time.monotonic() + END_SECONDS
        while (left := _processes(f"{self.dir}/")) and time.monotonic() < deadline:
            for pid in left:
                self._end(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _unmount(self):
        for _ in range(10):
            mounts = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), line.split()[4])
                      for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
            ours = [mount for mount in mounts if mount.startswith(f"{self.dir}/")]
            if not ours:
                return
            for mount in reversed(ours):
                subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    def down(self):
        self._end_processes()
        self._unmount()
        shutil.rmtree(self.dir, ignore_errors=True)


def serve(daemon):
    """Obeys the lines of a test until there are no more."""
    deeds = {"kill": daemon.kill, "start": daemon.start, "retag": daemon.retag, "forget": daemon.forget, "stop": lambda: daemon.signal(signal.SIGSTOP),
             "continue": lambda: daemon.signal(signal.SIGCONT)}
    print(daemon.socket, flush=True)
    for line in sys.stdin:
        if line.strip() == "containers":
            print(daemon.containers(), flush=True)
            continue
        deeds[line.strip()]()
        print("ok", flush=True)


def main():
    daemon = None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # its end is the end of its input
    try:
        daemon = Daemon()
        daemon.start()
        serve(daemon)
        return 0
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 77
    except BrokenPipeError:
        return 1
    finally:
        if daemon:
            daemon.down()


if __name__ == "__main__":
    sys.exit(main())
