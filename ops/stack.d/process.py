"""Servers that outlive the command which starts them: known by process id and start time, so that a recycled id is left alone."""

import json
import os
import pathlib
import signal
import subprocess
import time


def started_at(pid):
    """The kernel's start time of a process, in ticks since boot; None when there is none (a zombie counts as gone)."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Server:
    """One server of a stack: DIR/NAME.process names it while it runs, DIR/NAME.log holds what it printed."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.record = self.directory / f"{name}.process"
        self.log = self.directory / f"{name}.log"
        self.child = None

    def pid(self):
        """Of the running server; None when it does not run."""
        try:
            known = json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return known["pid"] if started_at(known["pid"]) == known["started"] else None

    def start(self, command, environment):
        """Returns how long the log was before, where what this start prints begins."""
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.child = subprocess.Popen(command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        known = {"pid": self.child.pid, "started": started_at(self.child.pid)}
        fresh = self.record.with_suffix(".new")
        fresh.write_text(json.dumps(known))
        os.replace(fresh, self.record)
        return begin

    def printed(self, begin):
        with open(self.log, "rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def stop(self, hard=False, seconds=20):
        """Ends it; what does not end by SIGTERM in time is killed."""
        pid = self.pid()
        for number, wait in ((signal.SIGKILL, 10),) if hard else ((signal.SIGTERM, seconds), (signal.SIGKILL, 10)):
            if pid is None:
                break
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + wait
            while self.pid() is not None and time.monotonic() < deadline:
                if self.child:
                    self.child.poll()
                time.sleep(0.02)
            pid = self.pid()
        if pid is not None:
            raise RuntimeError(f"{self.name} (process {pid}) does not end")
        if self.child:
            self.child.wait()
        self.record.unlink(missing_ok=True)


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
