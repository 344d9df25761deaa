"""What the stack runs: Debian's java, maven and golang where they are missing, Kafka's jars by Maven, MinIO by `go install`.

Everything else lands in one cache directory that all stacks of a user share; a lock lets only one of them fill it. Nothing is
downloaded that was built by somebody else: jars come by their coordinates, MinIO is compiled here from its pinned source.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

KAFKA = "4.1.1"
ARTIFACTS = (("org.apache.kafka", "kafka_2.13", KAFKA), ("org.slf4j", "slf4j-simple", "1.7.36"))
MINIO = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
DEBIAN = {"java": "default-jre-headless", "mvn": "maven", "go": "golang", "openssl": "openssl"}


def cache():
    base = os.environ.get("KILN_STACK_CACHE")
    if base:
        return pathlib.Path(base)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "kiln-stack"


def say(text):
    print(f"stack: {text}", file=sys.stderr, flush=True)


def run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def alone(directory):
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another one that installs")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def need_tools(*tools):
    missing = [DEBIAN[tool] for tool in tools if not shutil.which(tool)]
    if not missing:
        return
    say("installing Debian packages: " + " ".join(missing))
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run([*sudo, "apt-get", "update", "-q"], env=environment)
    run([*sudo, "apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env=environment)


def pom():
    wanted = "".join(f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
                     for group, name, version in ARTIFACTS)
    return ("<project><modelVersion>4.0.0</modelVersion><groupId>kiln</groupId>"
            f"<artifactId>stack</artifactId><version>1</version><packaging>pom</packaging><dependencies>{wanted}</dependencies></project>")


def install_kafka(into):
    need_tools("java", "mvn")
    say(f"fetching Kafka {KAFKA} by Maven")
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        (pathlib.Path(work) / "pom.xml").write_text(pom())
        run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work}/jars"], cwd=work)
        os.rename(f"{work}/jars", into)


def install_minio(into):
    need_tools("go")
    say("compiling MinIO from source, once; some minutes")
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        run(["go", "install", MINIO], env=dict(os.environ, GOBIN=work, GOFLAGS="-buildvcs=false"))
        os.rename(f"{work}/minio", into)


def installed():
    """(directory of Kafka's jars, MinIO's program); what is missing is installed first."""
    base = cache()
    jars, minio = base / f"kafka-{KAFKA}", base / ("minio-" + MINIO.rpartition("-")[2])
    if not (jars.is_dir() and minio.is_file()):
        with alone(base):
            if not jars.is_dir():
                install_kafka(jars)
            if not minio.is_file():
                install_minio(minio)
    need_tools("java", "openssl")
    return jars, minio
