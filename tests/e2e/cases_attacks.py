"""Proc macros that attack the sandbox from inside a real compile: each is refused, the build's outcome is plain cargo's."""

import os
import socket
import subprocess
import textwrap
import threading

from kilntest import Delta, wait_for

# Each body is Rust that ends in a String: "refused" or what it got.
ATTACKS = {
    "tcp": """
        match std::net::TcpStream::connect_timeout(&"127.0.0.1:PORT".parse().unwrap(), std::time::Duration::from_secs(2)) {
            Ok(_) => "connected".to_string(), Err(_) => "refused".to_string() }""",
    "dns": """
        use std::net::ToSocketAddrs;
        match "localhost.example:80".to_socket_addrs() { Ok(_) => "resolved".to_string(), Err(_) => "refused".to_string() }""",
    "passwd": """
        match std::fs::read_to_string("/etc/passwd") { Ok(t) => t, Err(_) => "refused".to_string() }""",
    "environ": """
        match std::fs::read("/proc/1/environ") {
            Ok(bytes) if bytes.windows(6).any(|w| w == b"CANARY") => "CANARY".to_string(),
            _ => "refused".to_string() }""",
    "write_toolchain": """
        let mut written = String::from("refused");
        for dir in std::env::var("LD_LIBRARY_PATH").into_iter().chain(["/usr/lib".to_string(), "/usr/bin".to_string()]) {
            if std::fs::write(format!("{dir}/planted"), b"x").is_ok() { written = dir; }
        }
        written""",
    "write_input": """
        match std::fs::OpenOptions::new().append(true).open("user/src/main.rs") {
            Ok(mut file) => { use std::io::Write; match file.write_all(b"// planted") { Ok(_) => "written".to_string(),
                Err(_) => "refused".to_string() } }, Err(_) => "refused".to_string() }""",
    "host_process": """
        let mut count = 0;
        if let Ok(entries) = std::fs::read_dir("/proc") {
            for entry in entries.flatten() {
                if let Ok(line) = std::fs::read_to_string(entry.path().join("cmdline")) {
                    if line.contains("kiln-agent") { count += 1; }
                }
            }
        }
        if count > 0 { format!("{count} agents seen") } else { "refused".to_string() }""",
    "daemon": """
        unsafe { extern "C" { fn fork() -> i32; fn setsid() -> i32; fn sleep(n: u32) -> u32; fn close(n: i32) -> i32;
                fn _exit(n: i32) -> !; }
            if fork() == 0 { setsid(); for n in 0..256 { close(n); } if fork() == 0 { sleep(30); } _exit(0); } }
        "refused".to_string()""",
}


def make_project(world, name, body):
    root = world.path(name)
    for package in ("attack", "user"):
        (root / package / "src").mkdir(parents=True)
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["attack", "user"]\n')
    (root / "attack" / "Cargo.toml").write_text(
        '[package]\nname = "attack"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n')
    # What the attack got goes to a file in the sandbox's own output, where the test reads it: the artifact itself is
    # compiled locally afterwards, because looking was undeclared.
    (root / "attack" / "src" / "lib.rs").write_text(textwrap.dedent("""
        use proc_macro::TokenStream;

        #[proc_macro]
        pub fn go(_: TokenStream) -> TokenStream {
            let got: String = { BODY };
            if std::path::Path::new("/kiln-is-not-here").exists() || got != "refused" && !std::path::Path::new("/etc/passwd").exists() {
                eprintln!("ATTACK WON: {got}");
                panic!("ATTACK WON: {got}");
            }
            format!("{:?}", "done").parse().unwrap()
        }
        """).replace("BODY", body))
    (root / "user" / "Cargo.toml").write_text(
        '[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nattack = { path = "../attack" }\n')
    (root / "user" / "src" / "main.rs").write_text('fn main() { println!("{}", attack::go!()); }\n')
    return root


def case_macro_attacks(world):
    agent = world.agent()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.settimeout(0.2)
    reached = []
    done = threading.Event()

    def accept():
        while not done.is_set():
            try:
                connection, _ = listener.accept()
                reached.append(connection)
                connection.close()
            except socket.timeout:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        for name, body in ATTACKS.items():
            project = make_project(world, f"attack-{name}", body.replace("PORT", str(listener.getsockname()[1])))
            world.cargo(project, agent, "build", "-p", "attack", target=world.path(f"target-{name}"), env={"KILN_CANARY": "x"})
            before = len(reached)
            with Delta(agent) as delta:
                world.cargo(project, agent, "build", target=world.path(f"target-{name}"), env={"KILN_CANARY": "x"})
            # Run locally afterwards the same macro may reach what the user may reach: once, outside the sandbox.
            assert len(reached) - before <= 1, f"{name}: reached the listener from the sandbox"
            out = subprocess.run([world.path(f"target-{name}") / "debug" / "user"], capture_output=True, text=True)
            assert out.stdout == "done\n", f"{name}: {out} {delta}"
            # A run whose attack had won panics in the sandbox only: it would be counted as a failed job.
            assert "job_failed" not in delta.reasons, f"{name} won in the sandbox: {delta}"
            planted = [p for p in ("/usr/lib/planted", "/usr/bin/planted") if os.path.exists(p)]
            for path in planted:
                os.unlink(path)  # the local compile runs as root here and may write there
            assert not list((agent.dir / "toolchains").rglob("planted")), f"{name} planted a file in the staged toolchain"
            assert not [p for p in (agent.dir / "executor").rglob("main.rs") if "planted" in p.read_text(errors="replace")], name
    finally:
        done.set()
        thread.join()
        listener.close()
    executor = agent.child("executor")
    no_daemon = lambda: not subprocess.run(["pgrep", "-P", str(executor)], capture_output=True, text=True).stdout.strip()
    wait_for(no_daemon, 5, "every process of the sandboxes ends")
