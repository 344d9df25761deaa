"""Real projects, built, checked, linted and tested through Kiln; and the same again elsewhere without running a compiler."""

import pathlib
import shutil
import subprocess

from kilntest import REAL, Delta, artifacts, assert_same_artifacts, skip

RIPGREP = "15.2.0"


def fetch_ripgrep(world):
    """The published sources of ripgrep: cargo fetches them as a dependency of an empty package."""
    shell = world.path("fetch")
    (shell / "src").mkdir(parents=True)
    (shell / "src" / "lib.rs").write_text("")
    (shell / "Cargo.toml").write_text(
        f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nripgrep = "={RIPGREP}"\n')
    done = subprocess.run(["cargo", "vendor", "-q", "vendored"], cwd=shell, capture_output=True, text=True)
    source = shell / "vendored" / "ripgrep"
    if done.returncode or not source.exists():
        skip(f"the sources of ripgrep {RIPGREP}: {done.stderr[-300:]}")
    project = world.path("ripgrep-source")
    shutil.copytree(source, project)
    (project / ".cargo-checksum.json").unlink(missing_ok=True)
    return project


def all_commands(world, project, agent, target, **options):
    """build, release, check, clippy, test: all must succeed."""
    for words in (["build", "--locked"], ["build", "--locked", "--release"], ["check", "--locked"], ["clippy", "--locked"],
                  ["test", "--locked"]):
        world.cargo(project, agent, *words, target=target, **options)


def share_cacheable(delta):
    compiles = delta.requests - delta.passed_through
    return (compiles - delta.local) / compiles


def twice(world, source, name, path_values=()):
    """The whole life of a project: first build, second one elsewhere with no execution, third with nothing to do."""
    agent = world.agent()
    first, second = world.copy_project(source, f"{name}-one"), world.copy_project(source, f"deeper/{name}-two")
    target_one, target_two = world.path("target-one"), world.path("elsewhere/target-two")
    with Delta(agent) as cold:
        all_commands(world, first, agent, target_one)
    print(f"  {name} cold: {cold}")
    assert cold.executions > 0 and cold.errors == 0, str(cold)
    assert share_cacheable(cold) >= 0.97, f"only {share_cacheable(cold):.3f} cacheable: {cold.reasons} {cold.last}"
    agent.restart()
    with Delta(agent) as warm:
        all_commands(world, second, agent, target_two, cargo_home=world.cargo_home("home-two"))
    print(f"  {name} warm: {warm}")
    assert warm.executions == 0 and warm.misses == 0, str(warm)
    assert warm.hits == warm.requests - warm.passed_through - warm.local, str(warm)
    assert_same_artifacts(artifacts(target_one), artifacts(target_two), path_values)
    with Delta(agent) as third:
        again = world.cargo(second, agent, "build", "--locked", target=target_two, cargo_home=world.path("home-two"))
    assert third.requests == 0 and "Compiling" not in again.stderr, again.stderr
    return target_one, target_two


def case_service(world):
    _, target = twice(world, REAL / "service", "service", path_values=("count-",))
    counted = subprocess.run([target / "debug" / "service", "--once", "b a b"], capture_output=True, text=True)
    assert counted.stdout.strip() == '[{"word":"a","times":1},{"word":"b","times":2}]', counted


def case_ripgrep(world):
    _, target = twice(world, fetch_ripgrep(world), "ripgrep")
    version = subprocess.run([target / "debug" / "rg", "--version"], capture_output=True, text=True)
    assert version.stdout.startswith(f"ripgrep {RIPGREP}"), version


case_ripgrep.only_full = True


def case_workspace(world):
    """Path dependencies, generated code, a proc macro, a C library, three crate types at once, tests, examples, benches."""
    source = REAL / "workspace"
    agent = world.agent()
    results = []
    for number in ("one", "two"):
        project = world.copy_project(source, f"place-{number}/workspace")
        target = world.path(f"target-{number}")
        with Delta(agent) as delta:
            all_commands(world, project, agent, target)
            world.cargo(project, agent, "build", "--locked", "--examples", "--benches", target=target)
        print(f"  workspace {number}: {delta}")
        results.append((delta, artifacts(target), target))
        agent.restart()
    (cold, first, _), (warm, second, target) = results
    assert cold.executions > 0 and cold.errors == 0, str(cold)
    assert warm.executions == 0 and warm.misses == 0, str(warm)
    different = {name for name in first if first[name] != second.get(name)}
    # The integration test holds its package's own path as a value, so it is compiled where it is.
    assert all("whole-" in name for name in different), different
    ran = subprocess.run([target / "debug" / "app"], capture_output=True, text=True)
    assert ran.stdout == "REPORT! 140 5 generated 4 app/src/main.rs\n", ran
    ran = subprocess.run([target / "debug" / "examples" / "hello"], capture_output=True, text=True)
    assert ran.stdout == "HELLO!\n", ran


def case_target_of_plain_cargo(world):
    """Plain cargo built the dependencies, tar moved them; what is built on top is cacheable all the same."""
    agent = world.agent()
    project = world.copy_project(REAL / "workspace", "workspace")
    target = world.path("target")
    libraries = [word for name in ("words", "gen", "derive", "clib", "multi") for word in ("-p", name)]
    world.cargo(project, None, "build", "--locked", *libraries, target=target)
    moved = world.path("moved")
    moved.mkdir()
    subprocess.run(f"tar -C '{target}' -cf - . | tar -C '{moved}' -xpf -", shell=True, check=True)
    with Delta(agent) as delta:
        world.cargo(project, agent, "build", "--locked", "-p", "app", target=moved)
    assert delta.requests >= 2 and delta.local == 0 and delta.executions == delta.requests, str(delta)
    ran = subprocess.run([moved / "debug" / "app"], capture_output=True, text=True)
    assert ran.stdout == "REPORT! 140 5 generated 4 app/src/main.rs\n", ran


def case_new_build_dir_layout(world):
    agent = world.agent()
    project = world.copy_project(REAL / "workspace", "workspace")
    options = {"env": {"RUSTC_BOOTSTRAP": "1"}}
    with Delta(agent) as cold:
        world.cargo(project, agent, "build", "--locked", "-Zbuild-dir-new-layout", target=world.path("one"), **options)
    assert cold.local == 0 and cold.executions > 0, str(cold)
    with Delta(agent) as warm:
        world.cargo(project, agent, "build", "--locked", "-Zbuild-dir-new-layout", target=world.path("two"), **options)
    assert warm.executions == 0 and warm.hits > 0, str(warm)


def case_same_output_as_plain_cargo(world):
    """Warnings and errors, text and JSON: byte for byte what plain cargo prints."""
    agent = world.agent()
    loud = world.path("loud")
    (loud / "src").mkdir(parents=True)
    (loud / "Cargo.toml").write_text('[package]\nname = "loud"\nversion = "0.1.0"\nedition = "2021"\n')
    warning = 'pub fn f() { let unused = 1; }\n#[deprecated] pub fn g() {}\npub fn h() { g() }\n'
    error = 'pub fn f() -> u32 { "text" }\n'
    for label, text, fine in (("warning", warning, True), ("error", error, False)):
        (loud / "src" / "lib.rs").write_text(text)
        for words in (["build"], ["build", "--message-format=json"], ["check", "--message-format=json-diagnostic-rendered-ansi"]):
            target = world.path(f"target-{label}-{len(words)}-{words[0]}")
            outputs = []
            for through in (None, agent, agent):
                shutil.rmtree(target, ignore_errors=True)
                done = world.cargo(loud, through, *words, target=target, check=False)
                assert (done.returncode == 0) == fine, done
                outputs.append((done.stdout, strip_times(done.stderr)))
            assert outputs[0] == outputs[1], f"{label} {words}: miss differs:\n{outputs[0]}\n{outputs[1]}"
            assert outputs[0] == outputs[2], f"{label} {words}: hit differs:\n{outputs[0]}\n{outputs[2]}"
    stats = agent.stats()
    assert stats["hits"] >= 3, stats


def strip_times(text):
    import re
    return re.sub(r"in \d+\.\d+s", "in TIME", text)
