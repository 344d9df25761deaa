"""Killed processes, damaged stores, missing walls: the build succeeds, the artifacts are right, nothing is left."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import threading
import time

from cases_traps import make_project
from kilntest import REAL, Delta, artifacts, assert_same_artifacts, skip, wait_for


def small_project(world, name="small", body="pub fn f() -> u32 { 7 }\n"):
    root = world.path(name)
    (root / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text(f'[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "src" / "lib.rs").write_text(body)
    (root / "src" / "main.rs").write_text('fn main() { println!("{}", small::f()); }\n')
    return root


def no_failed_probe(target):
    """cargo keeps what `rustc -vV` gave; a failure there would poison later builds."""
    info = json.loads((pathlib.Path(target) / ".rustc_info.json").read_text())
    for output in info["outputs"].values():
        assert output["success"], info


def no_partial_files(target):
    left = [path for path in pathlib.Path(target).rglob("*") if path.name.startswith(".kiln")]
    assert not left, left


def case_kill_at_random_moments(world):
    """kill -9 of agent, verifier and executor during builds of a real workspace."""
    builds = 20 if world.full else 3
    dice = random.Random(20261125)
    project = world.copy_project(REAL / "workspace", "workspace")
    reference = world.path("reference")
    world.cargo(project, world.agent("reference-agent"), "build", "--locked", target=reference)
    expected = artifacts(reference)
    agent = world.agent("victim")
    for number in range(builds):
        target = world.path(f"target-{number}")
        shutil.rmtree(agent.dir / "l0", ignore_errors=True)
        agent.stop()
        for room in ("l0", "store", "executor"):
            shutil.rmtree(agent.dir / room, ignore_errors=True)
        agent.start()
        done = threading.Event()

        def kill_some():
            time.sleep(dice.uniform(0.05, 0.6))
            while not done.is_set():
                victim = dice.choice(("agent", "verifier", "executor", "verifier", "executor"))
                try:
                    if victim == "agent":
                        agent.kill()
                        agent.start()
                    else:
                        pid = agent.child(victim)
                        if pid:
                            os.kill(pid, 9)
                except (ProcessLookupError, KeyError, TypeError, json.JSONDecodeError, subprocess.TimeoutExpired):
                    pass
                done.wait(dice.uniform(0.2, 0.9))

        killer = threading.Thread(target=kill_some)
        killer.start()
        try:
            world.cargo(project, agent, "build", "--locked", target=target, timeout=300)
        finally:
            done.set()
            killer.join()
        ran = subprocess.run([target / "debug" / "app"], capture_output=True, text=True)
        assert ran.stdout == "REPORT! 140 5 generated 4 app/src/main.rs\n", ran
        no_partial_files(target)
        no_failed_probe(target)
    # What the sandbox made is what the undisturbed agent made; the rest was compiled where it is.
    agent.restart()
    clean = world.path("clean")
    world.cargo(project, agent, "build", "--locked", target=clean)
    world.cargo(project, agent, "build", "--locked", target=clean)
    assert set(artifacts(clean)) == set(expected)


def case_damaged_store(world):
    """One flipped bit in any stored content, result or index: a counted miss, then a right artifact."""
    agent = world.agent()
    project = small_project(world)
    reference = world.path("reference")
    world.cargo(project, agent, "build", target=reference)
    expected = artifacts(reference)
    dice = random.Random(7)

    def flip(path):
        content = bytearray(path.read_bytes())
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        mode = path.stat().st_mode
        path.chmod(0o600)
        path.write_bytes(bytes(content))
        path.chmod(mode)

    for label, rooms in (("content", ["l0/cas", "store/vault/cas"]), ("results", ["store/vault/ac"]), ("index", ["l0/index"])):
        agent.stop()
        if label == "results":
            shutil.rmtree(agent.dir / "l0")
        flipped = 0
        for room in rooms:
            place = agent.dir / room
            for path in [place] if place.is_file() else sorted(place.rglob("*")):
                if path.is_file() and path.stat().st_size and path.name not in ("lock.mdb",):
                    flip(path)
                    flipped += 1
        assert flipped, f"nothing to damage in {rooms}"
        agent.start()
        target = world.path(f"target-{label}")
        with Delta(agent) as delta:
            world.cargo(project, agent, "build", target=target)
        assert_same_artifacts(expected, artifacts(target))
        print(f"  {label}: {flipped} files damaged, {delta}")
        if label != "index":
            assert delta.corrupt > 0 and delta.executions == delta.misses == 2, str(delta)
        with Delta(agent) as again:
            world.cargo(project, agent, "build", target=world.path(f"again-{label}"))
        assert again.hits == again.requests - again.passed_through and again.executions == 0, f"{label} heals: {again}"


def build_locally(world, label, agent_dir, env=None, command_prefix=(), programs=None):
    """A build whose agent cannot work must succeed at under 50 ms a crate; returns the wrapper's overhead in ms."""
    project = world.path(f"project-{label}")
    if not project.exists():
        small_project(world, f"project-{label}")
    target = world.path(f"target-{label}")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("CARGO", "RUSTC", "KILN"))}
    variables.update({"CARGO_INCREMENTAL": "0", "RUSTC_WRAPPER": str((programs or world.libexec) / "kiln")})
    if agent_dir:
        variables["KILN_DIR"] = str(agent_dir)
    variables.update(env or {})
    done = subprocess.run([*command_prefix, "cargo", "build", "--target-dir", str(target)], cwd=project, env=variables,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{label}: {done.stderr}"
    assert subprocess.run([target / "debug" / "small"], capture_output=True, text=True).stdout == "7\n"
    no_failed_probe(target)
    no_partial_files(target)
    return target


def overhead_ms(world, agent, env=None):
    """What a local compile costs more than rustc itself: median over calls of a compiler that does nothing."""
    fake = world.path("fake")
    fake.mkdir(exist_ok=True)
    (fake / "rustc").write_text("#!/bin/sh\nexit 0\n")
    (fake / "rustc").chmod(0o755)
    arguments = ["--crate-name", "x", "--crate-type", "lib", "--emit=metadata", "--out-dir", str(fake), "src/lib.rs"]
    times = []
    for wrapped in (True, False) * 15:
        command = ([world.program("kiln")] if wrapped else []) + [str(fake / "rustc"), *arguments]
        start = time.monotonic()
        subprocess.run(command, env={**os.environ, "KILN_DIR": str(agent), **(env or {})}, cwd=fake, check=True)
        times.append((wrapped, (time.monotonic() - start) * 1000))
    middle = lambda values: sorted(values)[len(values) // 2]
    return middle([t for w, t in times if w]) - middle([t for w, t in times if not w])


WITHOUT = {
    "bwrap": ["unshare", "--mount", "--propagation", "private", "sh", "-c",
              'mount --bind /dev/null /usr/bin/bwrap && exec "$@"', "sh"],
    "user namespaces": ["unshare", "--user", "--map-root-user", "sh", "-c",
                        'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"],
    "CAP_SYS_ADMIN": ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"],
}


def case_no_sandbox(world):
    """bwrap missing, user namespaces refused, root without CAP_SYS_ADMIN: one reason, the build goes on, doctor says why."""
    if os.geteuid() != 0:
        skip("root, to take walls away")
    for number, (what, prefix) in enumerate(WITHOUT.items()):
        agent = world.agent(f"without-{number}", prefix=prefix)
        with Delta(agent) as delta:
            build_locally(world, f"without-{number}", agent.dir)
        assert delta.local == delta.requests - delta.passed_through and delta.local > 0, f"{what}: {delta}"
        assert set(delta.reasons) == {"sandbox_unavailable"}, f"{what}: {delta}"
        doctor = agent.command("doctor")
        assert doctor.returncode == 1 and "BAD  sandbox" in doctor.stdout, f"{what}: {doctor}"
        print(f"  without {what}: {delta.last['sandbox_unavailable']}")
        assert overhead_ms(world, agent.dir) < 50, what
        agent.stop()


def case_doctor_of_a_healthy_machine(world):
    agent = world.agent()
    doctor = agent.command("doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    checks = {check["check"]: check["ok"] for check in json.loads(doctor.stdout)}
    assert all(checks.values()) and {"network", "host_files", "environment", "read_only"} <= set(checks), checks


def case_agent_cannot_serve(world):
    """No agent, a foreign socket, a read-only or full directory: local, quickly."""
    nobody = world.path("nobody-here")
    nobody.mkdir(mode=0o700)
    build_locally(world, "no-agent", nobody)
    assert overhead_ms(world, nobody) < 50
    late = world.agent(dir=nobody)
    stats = late.stats()
    assert stats["local_reasons"].get("agent_absent", 0) >= 2, stats  # what was compiled without an agent is counted
    if os.geteuid() == 0:
        foreign = world.path("foreign")
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
        import socket
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(foreign / "agent.sock"))
        os.chown(foreign / "agent.sock", 12345, 12345)
        listener.listen()
        build_locally(world, "foreign", foreign)
        assert overhead_ms(world, foreign) < 50
        listener.close()


def case_disk_full(world):
    if os.geteuid() != 0:
        skip("root, to mount a small tmpfs")
    small = world.path("small-disk")
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        agent = world.agent(dir=small / "agent")
        build_locally(world, "full", agent.dir)
        agent.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def case_identical_invocations(world):
    """64 of the same call at the same time: one execution, 64 right results."""
    agent = world.agent()
    root = small_project(world)
    rustc = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip() + "/bin/rustc"
    env = {**os.environ, "KILN_DIR": str(agent.dir), "CARGO_MANIFEST_DIR": str(root), "CARGO_PKG_NAME": "small",
           "CARGO_PKG_VERSION": "0.1.0", "CARGO_CRATE_NAME": "small"}
    processes = []
    with Delta(agent) as delta:
        for number in range(64):
            out = world.path(f"out-{number}")
            out.mkdir()
            processes.append(subprocess.Popen(
                [world.program("kiln"), rustc, "--crate-name", "small", "--edition=2021", "src/lib.rs", "--crate-type", "lib",
                 "--emit=dep-info,metadata,link", "-C", "metadata=1", "-C", "extra-filename=-1", "--out-dir", str(out)],
                cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    assert delta.executions == 1 and delta.local == 0, str(delta)
    digests = {tuple(artifacts(world.path(f"out-{number}")).items()) for number in range(64)}
    assert len(digests) == 1 and len(next(iter(digests))) == 2, digests


def case_interrupted_wrapper(world):
    """SIGINT and SIGTERM during a compile: no partial file, no orphan."""
    import signal
    agent = world.agent()
    project = make_project(world, "slow", "std::thread::sleep(std::time::Duration::from_secs(5)); String::new()", "", "")
    for number, sig in enumerate((signal.SIGINT, signal.SIGTERM)):
        target = world.path(f"target-{number}")
        env = {**os.environ, "RUSTC_WRAPPER": world.program("kiln"), "KILN_DIR": str(agent.dir), "CARGO_INCREMENTAL": "0"}
        cargo = subprocess.Popen(["cargo", "build", "--target-dir", str(target)], cwd=project, env=env, start_new_session=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 # A shell's background job, and so a test run, may have these ignored.
                                 preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGTERM)])
        wait_for(lambda: agent.status()["waiting"] or cargo.poll() is not None,
                 30, "a unit waits")
        os.killpg(cargo.pid, sig)
        cargo.wait(20)
        assert cargo.returncode != 0
        assert not list((target / "debug" / "deps").glob("user-*")), "a partial result"
        no_partial_files(target)
        wait_for(lambda: not agent.status()["waiting"], 60, "the job ends")
        with (project / "user" / "src" / "main.rs").open("a") as source:
            source.write(f"// {number}\n")
    world.cargo(project, agent, "build", target=world.path("target-after"))
