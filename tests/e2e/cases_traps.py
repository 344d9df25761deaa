"""Macros that look at what nobody declared: the artifact must be plain cargo's, before and after what they saw changes."""

import os
import re
import subprocess
import sys
import textwrap

from kilntest import Delta, digest, skip

# Opens and reads PATH by instructions of the macro's own, as rustix does without a C library.
RAW_READ = """
        let path = b"PATH\\0";
        let mut buffer = [0u8; 64];
        let mut got: isize = 0;
        unsafe {
            let fd: isize;
            std::arch::asm!("syscall", inlateout("rax") 2isize => fd, in("rdi") path.as_ptr(), in("rsi") 0, in("rdx") 0,
                out("rcx") _, out("r11") _);
            if fd >= 0 {
                std::arch::asm!("syscall", inlateout("rax") 0isize => got, in("rdi") fd, in("rsi") buffer.as_mut_ptr(),
                    in("rdx") 64, out("rcx") _, out("r11") _);
            }
        }
        String::from_utf8_lossy(&buffer[..got.max(0) as usize]).trim().to_string()"""

MACROS = {
    "file": """
        let text = std::fs::read_to_string("SEEN").unwrap_or_default();
        text.trim().to_string()""",
    "variable": """std::env::var("TRAP_VARIABLE").unwrap_or_default()""",
    "variables": """
        let mut all: Vec<String> = std::env::vars().filter(|(n, _)| n == "TRAP_VARIABLE").map(|(_, v)| v).collect();
        all.sort();
        all.join(",")""",
    "listing": """
        let mut names: Vec<String> = std::fs::read_dir("DIRECTORY").map(|entries| entries.flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned()).collect()).unwrap_or_default();
        names.sort();
        names.join(",")""",
    "absent": """std::path::Path::new("SEEN").exists().to_string()""",
    "program": """
        let out = std::process::Command::new("/bin/cat").arg("SEEN").output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()""",
    "raw": RAW_READ.replace("PATH", "SEEN"),
    "libc_syscall": """
        extern "C" { fn syscall(number: i64, ...) -> i64; }
        let mut buffer = [0u8; 64];
        let got = unsafe {
            let fd = syscall(2, b"SEEN\\0".as_ptr(), 0i32, 0i32);
            syscall(0, fd as i32, buffer.as_mut_ptr(), 64usize)
        };
        String::from_utf8_lossy(&buffer[..got.max(0) as usize]).trim().to_string()""",
    "static_child": """
        let out = std::process::Command::new("CHILD").output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()""",
    "dotfile": """std::fs::read_to_string("PACKAGE/.env").unwrap_or_default().trim().to_string()""",
}

CLOCK = """
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|d| d.as_nanos().to_string())
            .unwrap_or_default()"""


def make_project(world, name, body, seen, directory):
    root = world.path(name)
    for package in ("trap", "user"):
        (root / package / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["trap", "user"]\n')
    (root / "trap" / "Cargo.toml").write_text(
        '[package]\nname = "trap"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n')
    body = (body.replace("SEEN", str(seen)).replace("DIRECTORY", str(directory))
            .replace("PACKAGE", str(root / "user")).replace("CHILD", str(world.path("static-child"))))
    (root / "trap" / "src" / "lib.rs").write_text(textwrap.dedent("""
        use proc_macro::TokenStream;

        #[proc_macro]
        pub fn look(_: TokenStream) -> TokenStream {
            let seen: String = { BODY };
            format!("{seen:?}").parse().unwrap()
        }
        """).replace("BODY", body))
    (root / "user" / "Cargo.toml").write_text(
        '[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ntrap = { path = "../trap" }\n')
    (root / "user" / "src" / "main.rs").write_text('fn main() { println!("[{}]", trap::look!()); }\n')
    return root


def printed(world, project, agent, target, variable):
    world.cargo(project, agent, "build", target=target, env={"TRAP_VARIABLE": variable})
    return subprocess.run([target / "debug" / "user"], capture_output=True, text=True, check=True).stdout


def make_static_child(world, seen):
    """A program without a dynamic loader, so that nothing can be preloaded into it; prints the file."""
    source = world.path("static-child.c")
    source.write_text('#include <stdio.h>\nint main(void) { char t[64] = ""; FILE *f = fopen("%s", "r");'
                      ' if (f) fgets(t, sizeof t, f); fputs(t, stdout); return 0; }\n' % seen)
    subprocess.run(["cc", "-static", "-o", world.path("static-child"), source], check=True)


def case_undeclared_inputs(world):
    agent = world.agent()
    make_static_child(world, world.path("outside-static_child") / "seen")
    for name, body in MACROS.items():
        outside = world.path(f"outside-{name}")
        outside.mkdir()
        seen, directory = outside / "seen", outside / "listed"
        directory.mkdir()
        project = make_project(world, f"trap-{name}", body, seen, directory)
        for round, value in enumerate(("before", "after", None)):
            if value is None:
                seen.unlink(missing_ok=True)
            else:
                seen.write_text(value + "\n")
                (directory / value).write_text("")
                (project / "user" / ".env").write_text(value)
            plain = printed(world, project, None, world.path(f"plain-{name}-{round}"), value or "")
            for attempt in range(2):
                through = printed(world, project, agent, world.path(f"kiln-{name}-{round}-{attempt}"), value or "")
                assert through == plain, f"{name}, {value}, attempt {attempt}: {through!r}, plain cargo {plain!r}"
    reasons = agent.stats()["local_reasons"]
    assert sum(reasons.values()) >= len(MACROS), reasons


def case_own_system_calls(world):
    """A macro that reads its user's own files by itself is watched, and what it makes is cached."""
    agent = world.agent()
    project = make_project(world, "trap-own", RAW_READ.replace("PATH", "user/data.txt"), "/nowhere", "/nowhere")
    for round, value in enumerate(("one", "two")):
        (project / "user" / "data.txt").write_text(value)
        for attempt in range(2):
            with Delta(agent) as delta:
                out = printed(world, project, agent, world.path(f"target-{round}-{attempt}"), "")
            assert out == f"[{value}]\n", out
            executions = (2, 0, 1, 0)[2 * round + attempt]
            assert (delta.local, delta.executions, delta.hits) == (0, executions, 2 - executions), f"{value} {attempt}: {delta}"


# Watches its own system calls, with an eye that never looks, and becomes what its arguments say.
OTHER_WATCHER = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
step = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(step)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
listener = libc.syscall(317, 1, 8, program)
assert listener >= 0, ctypes.get_errno()
os.dup2(listener, 250, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def case_unwatchable_host(world):
    """Where the kernel lets nobody watch, such a unit is compiled locally, by name, and others are not."""
    agent = world.agent(prefix=[sys.executable, "-c", OTHER_WATCHER])
    project = make_project(world, "trap-own", RAW_READ.replace("PATH", "user/data.txt"), "/nowhere", "/nowhere")
    (project / "user" / "data.txt").write_text("seen")
    for attempt in range(2):
        with Delta(agent) as delta:
            out = printed(world, project, agent, world.path(f"target-{attempt}"), "")
        assert out == "[seen]\n", out
        assert delta.reasons == {"observer_unavailable": 1} and delta.executions + delta.hits == 1, str(delta)
    doctor = agent.command("doctor").stdout
    assert "weak watching" in doctor, doctor


CHANCE = """
        let map: std::collections::HashMap<u32, ()> = (0..16).map(|i| (i, ())).collect();
        let names: Vec<_> = std::fs::read_dir("user/src").unwrap().map(|e| e.unwrap().file_name()).collect();
        format!("{:?} {} {:?}", map.keys().collect::<Vec<_>>(), std::process::id(), names)"""


def case_chance_repeats(world):
    """What macros make of chance is the same in every run, whoever compiles, watched or not, and whatever else is edited."""
    project = make_project(world, "trap-chance", CHANCE, "/nowhere", "/nowhere")
    for name in ("z.rs", "a.rs", "m.rs"):
        (project / "user" / "src" / name).write_text("")
    made, texts = set(), set()
    for number in range(2):
        agent = world.agent(f"agent-{number}", settings="[executor]\nwatch_all = true\n" if number else "")
        for run in range(3):
            (project / "user" / "NOTES").write_text(f"{run}\n")  # in the key, and in nothing that is made
            target = world.path(f"target-{number}-{run}")
            with Delta(agent) as delta:
                texts.add(printed(world, project, agent, target, ""))
            assert delta.executions == (1 if run else 2) and delta.local == 0, str(delta)
            made.add(digest(target / "debug" / "user"))
    assert len(made) == 1 and len(texts) == 1, texts
    main = project / "user" / "src" / "main.rs"
    main.write_text("#[allow(dead_code)] fn elsewhere() -> u32 { 7 }\n" + main.read_text())
    texts.add(printed(world, project, agent, world.path("target-edited"), ""))
    assert len(texts) == 1, texts


RUSTIX = """
        use rustix::fs::{openat, Mode, OFlags, CWD};
        let mut buffer = [0u8; 64];
        let got = openat(CWD, "PATH", OFlags::RDONLY, Mode::empty()).and_then(|fd| rustix::io::read(&fd, &mut buffer)).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..got]).trim().to_string()"""


def case_rustix(world):
    """The crate itself: its user's files are cached, others make the unit local, its clock (found in /proc) is no constant."""
    agent = world.agent()
    outside = world.path("outside")
    outside.write_text("before")
    bodies = {"own": RUSTIX.replace("PATH", "user/data.txt"), "other": RUSTIX.replace("PATH", str(outside)),
              "clock": "format!(\"{:?}\", rustix::time::clock_gettime(rustix::time::ClockId::Realtime))"}
    for name, body in bodies.items():
        project = make_project(world, f"trap-{name}", body, "/nowhere", "/nowhere")
        with open(project / "trap" / "Cargo.toml", "a") as manifest:
            manifest.write('[dependencies]\nrustix = { version = "1", features = ["fs", "time"] }\n')
        if subprocess.run(["cargo", "fetch"], cwd=project, capture_output=True).returncode:
            skip("rustix, which the registry did not give")
        outs = []
        for round, value in enumerate(("one", "two")):
            (project / "user" / "data.txt").write_text(value)
            outside.write_text(value)
            with Delta(agent) as delta:
                outs.append(printed(world, project, agent, world.path(f"target-{name}-{round}"), ""))
            if name == "own":
                assert delta.local == 0, str(delta)
            else:
                assert delta.reasons == {"undeclared_path": 1}, str(delta)
        assert outs == ["[one]\n", "[two]\n"] if name != "clock" else outs[0] != outs[1] and re.search("tv_sec", outs[0]), outs


case_rustix.only_full = True


def case_clock(world):
    """A clock read cannot be compared with plain cargo's; it must not be answered from the cache."""
    agent = world.agent()
    project = make_project(world, "trap-clock", CLOCK, "/nowhere", "/nowhere")
    values = {printed(world, project, agent, world.path(f"target-{n}"), "") for n in range(3)}
    assert len(values) == 3, values
    assert "clock" in agent.stats()["local_reasons"], agent.stats()["local_reasons"]


def case_path_values(world):
    """A path that becomes a value is the caller's own, in each checkout."""
    agent = world.agent()
    for number in range(2):
        root = world.path(f"checkout-{number}")
        (root / "src").mkdir(parents=True)
        (root / "Cargo.toml").write_text('[package]\nname = "where"\nversion = "0.1.0"\nedition = "2021"\n')
        (root / "build.rs").write_text('fn main() { println!("cargo:rustc-env=PLACE={}", std::env::var("OUT_DIR").unwrap()); }\n')
        (root / "src" / "main.rs").write_text(
            'fn main() { println!("{} {} {}", env!("CARGO_MANIFEST_DIR"), env!("OUT_DIR"), env!("PLACE").len()); }\n')
        target = world.path(f"target-{'x' * number}{number}")
        world.cargo(root, agent, "build", target=target)
        out = subprocess.run([target / "debug" / "where"], capture_output=True, text=True, check=True).stdout.split()
        assert out[0] == str(root) and out[1].startswith(str(target)) and int(out[2]) == len(out[1]), out


def case_variable_from_build_script(world):
    agent = world.agent()
    root = world.path("labelled")
    (root / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[package]\nname = "labelled"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "build.rs").write_text('fn main() { println!("cargo:rustc-env=LABEL={}", std::env::var("TRAP").unwrap());'
                                   ' println!("cargo:rerun-if-env-changed=TRAP"); }\n')
    (root / "src" / "main.rs").write_text('fn main() { println!("{} {:?}", env!("LABEL"), option_env!("MAYBE")); }\n')
    expected = {}
    for round, (label, maybe) in enumerate((("a", None), ("b", None), ("b", "x"), ("a", None))):
        env = {"TRAP": label} | ({"MAYBE": maybe} if maybe else {})
        target = world.path(f"target-{round}")
        with Delta(agent) as delta:
            world.cargo(root, agent, "build", target=target, env=env)
        out = subprocess.run([target / "debug" / "labelled"], capture_output=True, text=True, check=True).stdout.strip()
        assert out == (f'{label} Some("{maybe}")' if maybe else f"{label} None"), out
        assert delta.local == 0, str(delta)
        expected[round] = delta.executions
    assert expected[3] == 0, expected


def case_toolchain_change_is_noticed(world):
    """A toolchain that changed in place is another toolchain: nothing of the old one is served."""
    import pathlib
    import shutil
    sysroot = pathlib.Path(subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip())
    copy = world.path("toolchain")
    shutil.copytree(sysroot, copy, symlinks=True, ignore=shutil.ignore_patterns("doc", "share", "man"))
    agent = world.agent()
    root = world.path("plain")
    (root / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[package]\nname = "plain"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "src" / "lib.rs").write_text("pub fn f() {}\n")
    env = {"RUSTC": str(copy / "bin" / "rustc")}
    with Delta(agent) as first:
        world.cargo(root, agent, "build", target=world.path("t1"), env=env)
    with Delta(agent) as second:
        world.cargo(root, agent, "build", target=world.path("t2"), env=env)
    assert (first.executions, second.executions, second.hits) == (1, 0, 1), f"{first} / {second}"
    library = next((copy / "lib" / "rustlib" / "x86_64-unknown-linux-gnu" / "lib").glob("libgetopts-*.rlib"))
    content = library.read_bytes()
    os.unlink(library)
    library.write_bytes(content + b"\0")
    with Delta(agent) as third:
        world.cargo(root, agent, "build", target=world.path("t3"), env=env)
    assert third.executions == 1, str(third)
