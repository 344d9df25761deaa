"""The whole of Kiln with jobs in containers: the same artifacts as behind bubblewrap; killed on its way."""

import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "docker"))
import daemon  # noqa: E402
from cases_faults import no_partial_files, small_project  # noqa: E402
from kilntest import REAL, Delta, artifacts, assert_same_artifacts, skip, wait_for  # noqa: E402


def with_docker(case):
    """The case with a dockerd of its own, which is gone afterwards."""
    def run(world):
        docker = None
        try:
            docker = daemon.Daemon()
            docker.start()
            case(world, docker)
        except daemon.Missing as missing:
            skip(str(missing))
        finally:
            if docker:
                docker.down()
    run.__name__ = case.__name__
    return run


def settings(docker):
    return f"[executor]\nbackend = docker\ndocker_socket = {docker.socket}\n"


@with_docker
def case_docker_gives_the_same_artifacts(world, docker):
    contained = world.agent("contained", settings=settings(docker))
    behind_bwrap = world.agent("behind-bwrap")
    doctor = contained.command("doctor")
    assert doctor.returncode == 0 and "limit_memory" in doctor.stdout and "BAD" not in doctor.stdout, doctor
    project, results = world.copy_project(REAL / "workspace", "project") if world.full else small_project(world), []
    for agent in (behind_bwrap, contained):
        target = world.path(f"target-{len(results)}")
        with Delta(agent) as delta:
            world.cargo(project, agent, "build", "--offline", target=target)
        assert delta.executions > 0 and delta.errors == 0, f"{delta}\n{agent.log_tail()}"
        results.append((artifacts(target), delta.executions, delta.reasons))
    assert_same_artifacts(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:], f"{results[0][1:]} and {results[1][1:]}"
    print(f"  {results[1][1]} executions in containers, {len(results[1][0])} artifacts like those behind bubblewrap")
    assert docker.containers() == 0


def jobs_of(world):
    """kiln-run-docker processes of this world."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == world.program("kiln-run-docker"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@with_docker
def case_docker_killed_on_the_way(world, docker):
    """kill -9 of kiln-run-docker, of the executor and of dockerd during builds: they succeed, and nothing is left after a restart."""
    agent = world.agent(settings=settings(docker))
    slow = "".join(f"pub fn f{i}(x: u64) -> u64 {{ (0..x).map(|y| y * {i}).filter(|y| y % 3 == 1).sum() }}\n" for i in range(150))
    for number, victim in enumerate(("kiln-run-docker", "executor", "dockerd")):
        project = small_project(world, f"small-{number}", slow + f"pub fn f() -> u32 {{ {number} }}\n")
        target, started = world.path(f"target-{number}"), time.monotonic()
        build = subprocess.Popen(["cargo", "build", "--offline", "--target-dir", str(target)], cwd=project,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, "RUSTC_WRAPPER": world.program("kiln"), "KILN_DIR": str(agent.dir),
                                      "CARGO_INCREMENTAL": "0"})
        try:
            wait_for(lambda: docker.containers() > 0, 30, "a container runs")
            if victim == "dockerd":
                docker.kill()
            else:
                os.kill(jobs_of(world)[0] if victim == "kiln-run-docker" else agent.child("executor"), signal.SIGKILL)
            _, errors = build.communicate(timeout=120)
        finally:
            build.kill()
            build.wait()
        assert build.returncode == 0, f"{victim}: {errors}\n{agent.log_tail()}"
        no_partial_files(target)
        assert subprocess.run([target / "debug" / "small"], capture_output=True, text=True).stdout == f"{number}\n", victim
        print(f"  {victim} killed: the build took {time.monotonic() - started:.1f} s")
        if victim == "dockerd":
            docker.start()
    agent.restart()
    wait_for(lambda: docker.containers() == 0, 15, "the sweep has removed all containers")
    wait_for(lambda: not jobs_of(world) and not list((agent.dir / "docker").iterdir()), 15, "no job's files are left")
