// A proc macro that does what its argument says: act!("read /etc/hostname"). test_preload_rustc.c compiles crates with
// it under the observer.
extern crate proc_macro;
use proc_macro::TokenStream;

extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

fn act_on(verb: &str, what: &str) {
    match verb {
        "nothing" => {}
        "read" => drop(std::fs::read(what)),
        "stat" => drop(std::fs::symlink_metadata(what)),
        "list" => drop(std::fs::read_dir(what).map(|names| names.count())),
        "env" => drop(std::env::var_os(what)),
        "clock" => drop(std::time::SystemTime::now()),
        "program" => drop(std::process::Command::new(what).output()),
        "number" => unsafe { drop(syscall(what.parse().unwrap(), 0xffffffffu64)) },
        "connect" => drop(std::net::TcpStream::connect(what)),
        "write" => drop(std::fs::write(what, "x")),
        "cpus" => drop(std::thread::available_parallelism()),
        "set" => unsafe { std::env::set_var(what, "x") },
        "cwd" => drop(std::env::current_dir()),
        "canonical" => drop(std::fs::canonicalize(what)),
        "panic" => {
            std::panic::set_hook(Box::new(|_| ()));
            drop(std::panic::catch_unwind(|| panic!()))
        }
        "thread" => std::thread::spawn(|| std::time::Instant::now()).join().map(drop).unwrap(),
        "tmp" => {
            std::fs::write(what, "x").unwrap();
            std::fs::read(what).unwrap();
            std::fs::remove_file(what).unwrap();
        }
        _ => panic!("what is {verb}?"),
    }
}

#[proc_macro]
pub fn act(input: TokenStream) -> TokenStream {
    for literal in input {
        let text = literal.to_string();
        let (verb, what) = text.trim_matches('"').split_once(' ').unwrap();
        act_on(verb, what);
    }
    TokenStream::new()
}

// A constant whose value is the order of a hash map.
#[proc_macro]
pub fn order(_: TokenStream) -> TokenStream {
    let map: std::collections::HashMap<u32, ()> = (0..16).map(|i| (i, ())).collect();
    format!("pub const ORDER: &str = \"{:?}\";", map.keys().collect::<Vec<_>>()).parse().unwrap()
}

// The order of a directory, and what this process and its threads are called.
#[proc_macro]
pub fn process(_: TokenStream) -> TokenStream {
    let names: Vec<String> = std::fs::read_dir("src/many").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let thread = std::thread::spawn(|| format!("{:?}", std::thread::current().id())).join().unwrap();
    format!("pub const NAMES: &str = \"{names:?}\"; pub const PROCESS: &str = \"{} {thread}\";", std::process::id())
        .replace("[\"", "[").replace("\"]", "]").replace("\", \"", ", ").parse().unwrap()
}
