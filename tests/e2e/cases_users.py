"""Two users on one machine, and system mode: who can see and change what."""

import os
import pathlib
import pwd
import shutil
import subprocess

from kilntest import Delta, skip

BUILDER, OTHER = 23451, 23452


def need_root():
    if os.geteuid() != 0:
        skip("root, to act as other users")


def as_user(uid, command, **options):
    return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)],
                          capture_output=True, text=True, timeout=120, **options)


def open_toolchain(world):
    """A toolchain that every user may read: the one of root's home lies behind a closed door."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    copy = world.path("toolchain")
    shutil.copytree(sysroot, copy, symlinks=True, ignore=shutil.ignore_patterns("doc", "share", "man", "src"))
    return copy


def make_project(world, name, owner):
    root = world.path(name)
    (root / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "src" / "main.rs").write_text('fn main() { println!("7"); }\n')
    home = world.path(name + "-home")
    home.mkdir()
    for path in [root, home, *root.rglob("*")]:
        os.chown(path, owner, owner)
    return root


def build(world, toolchain, project, uid, agent_dir):
    env = {"PATH": f"{toolchain}/bin:/usr/bin:/bin", "HOME": f"{project}-home", "CARGO_HOME": f"{project}-home",
           "RUSTC": str(toolchain / "bin" / "rustc"), "CARGO_INCREMENTAL": "0", "RUSTC_WRAPPER": world.program("kiln"),
           "KILN_DIR": str(agent_dir)}
    done = as_user(uid, [toolchain / "bin" / "cargo", "build", "--target-dir", project / "target"], cwd=project, env=env)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([project / "target" / "debug" / "small"], capture_output=True, text=True).stdout == "7\n"


def build_homeless(world, label, prefix, uid, env):
    """A build whose user has no usable place for an agent: it succeeds, quickly, and doctor says why nothing is cached."""
    toolchain = world.path("toolchain")
    if not toolchain.exists():
        open_toolchain(world)
    project = make_project(world, label, uid)
    variables = {"PATH": f"{toolchain}/bin:/usr/bin:/bin", "CARGO_HOME": f"{project}-home", "CARGO_INCREMENTAL": "0",
                 "RUSTC": str(toolchain / "bin" / "rustc"), "RUSTC_WRAPPER": world.program("kiln"), **env}
    identity = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []

    def run(*command, cwd=project):
        return subprocess.run([*prefix, *identity, *map(str, command)], capture_output=True, text=True, timeout=120,
                              env=variables, cwd=cwd)

    done = run(toolchain / "bin" / "cargo", "build", "--target-dir", project / "target")
    assert done.returncode == 0, done.stderr
    assert "kiln" not in done.stderr.replace(str(world.root), ""), done.stderr
    assert subprocess.run([project / "target" / "debug" / "small"], capture_output=True, text=True).stdout == "7\n"
    doctor = run(world.program("kiln"), "doctor")
    assert doctor.returncode != 0, doctor
    return doctor.stdout + doctor.stderr


def case_account_without_home(world):
    """An account that the password database does not know, with HOME=/."""
    need_root()
    said = build_homeless(world, "homeless", [], 54321, {"HOME": "/"})
    assert "password database" in said and "54321" in said, said


def case_read_only_cache(world):
    """The directory for the cache lies on a read-only file system."""
    need_root()
    home = pathlib.Path(pwd.getpwuid(0).pw_dir)
    (home / ".cache").mkdir(exist_ok=True)
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
              f'mount -t tmpfs -o ro tmpfs {home}/.cache && exec "$@"', "sh"]
    said = build_homeless(world, "read-only", prefix, 0, {"HOME": str(home)})
    assert "Read-only file system" in said and f"{home}/.cache/kiln" in said, said


def case_two_users(world):
    """An ordinary user's agent works, and another user neither sees nor uses it."""
    need_root()
    toolchain = open_toolchain(world)
    agent = world.agent("builders-agent", user=BUILDER)
    with Delta(agent) as own:
        build(world, toolchain, make_project(world, "own", BUILDER), BUILDER, agent.dir)
    assert own.executions == 1 and own.local == 0, str(own)
    with Delta(agent) as foreign:
        build(world, toolchain, make_project(world, "foreign", OTHER), OTHER, agent.dir)
    assert foreign.requests == 0, str(foreign)
    seen = as_user(OTHER, ["ls", agent.dir])
    assert seen.returncode != 0, seen


def case_system_mode(world):
    """One agent for the host, under a uid that no builder has: they use it, and can neither read its key nor plant an entry."""
    need_root()
    toolchain = open_toolchain(world)
    agent = world.agent("system-agent", system=True)
    with Delta(agent) as first:
        build(world, toolchain, make_project(world, "first", BUILDER), BUILDER, agent.dir)
    assert first.executions == 1, str(first)
    with Delta(agent) as second:
        build(world, toolchain, make_project(world, "second", OTHER), OTHER, agent.dir)
    assert second.hits == 1 and second.executions == 0, str(second)
    for path in [agent.dir / "keys" / "verifier", *list((agent.dir / "l0").rglob("*"))[:20],
                 *list((agent.dir / "store").rglob("*"))[:20]]:
        read = as_user(BUILDER, ["cat", path])
        assert read.returncode != 0, f"the builder reads {path}"
        write = as_user(BUILDER, ["sh", "-c", f"echo x > {path}/planted || echo x > {path}"])
        assert write.returncode != 0, f"the builder writes {path}"
    refused = as_user(BUILDER, [world.program("kiln"), "agent", "stop"], env={"KILN_DIR": str(agent.dir), "PATH": "/usr/bin:/bin"})
    assert refused.returncode == 1 and agent.answers(), refused
    # A directory of a builder's own above the compiler: it could be another compiler tomorrow, and the agent reads it.
    os.chown(toolchain / "bin", BUILDER, BUILDER)
    swapped = as_user(BUILDER, ["sh", "-c", "cp rustc other && mv -f other rustc"], cwd=toolchain / "bin")
    assert swapped.returncode == 0, swapped
    with Delta(agent) as third:
        build(world, toolchain, make_project(world, "third", BUILDER), BUILDER, agent.dir)
    assert third.reasons == {"toolchain": 1} and third.executions == 0, str(third)
