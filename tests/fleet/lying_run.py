#!/usr/bin/python3 -B
"""kiln-run as a lying executor has it: runs the real one, "kiln-run.honest" beside it, and flips the last byte of one output
before the executor hears that the job is done. What it has flipped is in "lies" beside it, a line each: name, old byte.

Descriptor 3 is the executor's socket, 4 and up are what the job is given (consumer/run/spec.h)."""

import array
import os
import pathlib
import select
import socket
import sys

HERE = pathlib.Path(__file__).resolve().parent
HONEST = HERE / "kiln-run.honest"
READY, DONE = 1, 3
ENDINGS = (".rlib", ".rmeta", ".so", "")  # which output, if there are several; "" is a program


def flip(out_dir):
    for ending in ENDINGS:
        for name in sorted(os.listdir(out_dir)):
            if pathlib.Path(name).suffix != ending:
                continue
            mode = os.stat(name, dir_fd=out_dir).st_mode
            os.chmod(name, mode | 0o200, dir_fd=out_dir)
            file = os.open(name, os.O_RDWR, dir_fd=out_dir)
            last = os.fstat(file).st_size - 1
            byte = os.pread(file, 1, last)[0]
            os.pwrite(file, bytes([byte ^ 1]), last)
            os.close(file)
            os.chmod(name, mode, dir_fd=out_dir)
            with open(HERE / "lies", "a") as lies:
                lies.write(f"{name} {byte}\n")
            return


def relay(up, down, child):
    """Everything that the honest one says, with its descriptors, to the executor."""
    out_dir = None
    while True:
        ready, _, _ = select.select([up, down], [], [])
        if up in ready and not up.recv(65536):  # the executor has gone
            os.kill(child, 15)
            return
        if down not in ready:
            continue
        text, ancillary, _, _ = down.recvmsg(65536, socket.CMSG_SPACE(8 * 4))
        if not text:
            return
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        if text[0] == READY:
            out_dir = os.dup(fds[0])
        elif text[0] == DONE:
            flip(out_dir)
        up.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
        for fd in fds:
            os.close(fd)


def main():
    try:
        up = socket.socket(fileno=3)
    except OSError:  # asked something else than to run a job
        os.execv(HONEST, ["kiln-run", *sys.argv[1:]])
    down, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        os.dup2(theirs.fileno(), 3)
        os.execv(HONEST, ["kiln-run", *sys.argv[1:]])
    theirs.close()
    relay(up, down, child)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


if __name__ == "__main__":
    main()
