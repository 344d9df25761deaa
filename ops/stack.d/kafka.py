"""One Kafka broker and controller in one process, mutual TLS on both listeners, everything denied that no ACL allows."""

import pathlib
import shutil
import socket

import process
from certificates import private
from install import run

HEAP = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
LOGGING = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
           "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=off", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
SUPER_USERS = "User:stack-server;User:operator"


def properties(directory, ports, tls):
    return f"""process.roles=broker,controller
node.id=1
listeners=CLIENT://127.0.0.1:{ports['kafka']},CONTROLLER://127.0.0.1:{ports['controller']}
advertised.listeners=CLIENT://127.0.0.1:{ports['kafka']}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listener.security.protocol.map=CLIENT:SSL,CONTROLLER:SSL
controller.quorum.voters=1@127.0.0.1:{ports['controller']}
ssl.keystore.type=PEM
ssl.keystore.location={tls / 'server.pem'}
ssl.truststore.type=PEM
ssl.truststore.location={tls / 'ca.crt'}
ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users={SUPER_USERS}
allow.everyone.if.no.acl.found=false
auto.create.topics.enable=false
log.dirs={directory / 'data'}
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=4
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
"""


class Kafka:
    name = "kafka"

    def __init__(self, directory, ports, jars, tls):
        self.directory = pathlib.Path(directory) / "kafka"
        self.ports, self.jars, self.tls = ports, jars, pathlib.Path(tls)
        self.server = process.Server(directory, self.name)

    def java(self, main, *arguments):
        return [shutil.which("java"), *HEAP, *LOGGING, "-cp", f"{self.jars}/*", main, *map(str, arguments)]

    def configure(self):
        self.directory.mkdir(mode=0o700, exist_ok=True)
        private(self.directory / "server.properties", properties(self.directory, self.ports, self.tls))
        private(self.tls / "server.pem", (self.tls / "server.key").read_text() + (self.tls / "server.crt").read_text())

    def start(self):
        """Returns False when a port turned out to be taken."""
        self.configure()
        file = self.directory / "server.properties"
        if not (self.directory / "data" / "meta.properties").exists():
            run(self.java("kafka.tools.StorageTool", "format", "-t", "a2lsbi1zdGFjay0wMDAwMQ", "-c", file, "--ignore-formatted"))
        begin = self.server.start(self.java("kafka.Kafka", file), {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        process.wait_for(lambda: "Kafka Server started" in self.server.printed(begin) or self.server.pid() is None, 60,
                         f"Kafka starts; see {self.server.log}")
        if self.server.pid() is None:
            if "Address already in use" in self.server.printed(begin) or "BindException" in self.server.printed(begin):
                self.server.stop()
                return False
            raise RuntimeError(f"Kafka ended:\n{self.server.printed(begin)[-4000:]}")
        return True

    def healthy(self):
        if self.server.pid() is None:
            return "not running"
        try:
            socket.create_connection(("127.0.0.1", self.ports["kafka"]), timeout=5).close()
        except OSError as problem:
            return str(problem)
        return None
