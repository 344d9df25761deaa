"""Macros that look at what nobody declared: the artifact must be plain cargo's, before and after what they saw changes."""

import os
import subprocess
import textwrap

from kilntest import Delta

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
    "raw": """
        let path = b"SEEN\\0";
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
        String::from_utf8_lossy(&buffer[..got.max(0) as usize]).trim().to_string()""",
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
            .replace("PACKAGE", str(root / "user")))
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


def case_undeclared_inputs(world):
    agent = world.agent()
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
