"""A TCP proxy on loopback that counts HTTP requests and bytes, and can add a round trip's delay to everything that passes.

    with Proxy("127.0.0.1:9000", delay_ms=20) as proxy: ... proxy.port, proxy.take()

What is sent in the same moment arrives in the same moment, however much it is: a delay, and no lack of bandwidth. A process of its own.
Run by hand: delay_proxy.py UPSTREAM DELAY_MS; it prints its port, and the counts for each line it reads.
"""

import asyncio
import json
import re
import subprocess
import sys

METHODS = re.compile(rb"^(GET|PUT|HEAD|POST|DELETE) /")


class Proxy:
    def __init__(self, upstream, delay_ms=0):
        self.command = [sys.executable, "-B", __file__, upstream.removeprefix("http://"), str(delay_ms)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)

    def take(self):
        """What passed since the last call: {"requests": {"GET": n, ...}, "up": bytes, "down": bytes, "connections": n}."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Counts:
    def __init__(self):
        self.requests, self.up, self.down, self.connections = {}, 0, 0, 0


class End(asyncio.Protocol):
    """One side of a connection; `far` is the other one."""

    def __init__(self, proxy, far=None):
        self.proxy, self.far, self.transport, self.waiting, self.ended = proxy, far, None, [], False
        self.is_client = far is None

    def connection_made(self, transport):
        self.transport = transport
        if self.is_client:
            self.proxy.counts.connections += 1
            # The handshake costs a round trip too.
            self.proxy.loop.call_later(2 * self.proxy.one_way, lambda: self.proxy.loop.create_task(self.connect()))
        for data in self.waiting:
            transport.write(data)
        self.waiting.clear()
        if self.ended:
            transport.close()

    async def connect(self):
        self.far = End(self.proxy, self)
        self.far.waiting, self.waiting = self.waiting, []
        self.far.ended = self.ended
        try:
            await self.proxy.loop.create_connection(lambda: self.far, *self.proxy.upstream)
        except OSError:
            self.transport.close()

    def data_received(self, data):
        counts = self.proxy.counts
        if self.is_client:
            counts.up += len(data)
            found = METHODS.match(data)
            if found:
                word = found.group(1).decode()
                counts.requests[word] = counts.requests.get(word, 0) + 1
        else:
            counts.down += len(data)
        self.proxy.later(self.give, data)

    def give(self, data):
        if self.far is None:
            self.waiting.append(data)
        elif self.far.transport is None:
            self.far.waiting.append(data)
        elif not self.far.transport.is_closing():
            self.far.transport.write(data)

    def connection_lost(self, _):
        self.proxy.later(self.finish, None)

    def finish(self, _):
        self.ended = True
        if self.far is not None:
            self.far.ended = True
            if self.far.transport is not None:
                self.far.transport.close()


class Running:
    def __init__(self, upstream, delay_ms):
        self.loop = asyncio.get_running_loop()
        host, port = upstream.rsplit(":", 1)
        self.upstream, self.one_way, self.counts = (host, int(port)), delay_ms / 2000, Counts()

    def later(self, call, argument):
        if self.one_way:
            self.loop.call_later(self.one_way, call, argument)
        else:
            call(argument)


async def serve(upstream, delay_ms):
    running = Running(upstream, delay_ms)
    server = await running.loop.create_server(lambda: End(running), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await running.loop.run_in_executor(None, sys.stdin.readline):
        counts, running.counts = running.counts, Counts()
        print(json.dumps(vars(counts)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2])))
