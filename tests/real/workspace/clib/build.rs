use std::{env, path::Path, process::Command};

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("the C compiler runs");
    assert!(status.success(), "{program} {arguments:?}");
}

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let object = Path::new(&out).join("add.o");
    let archive = Path::new(&out).join("libkilntest.a");
    let (object, archive) = (object.to_str().unwrap(), archive.to_str().unwrap());
    run("cc", &["-O1", "-fPIC", "-c", "c/add.c", "-o", object]);
    run("ar", &["crsD", archive, object]);
    println!("cargo:rustc-link-search=native={out}");
    println!("cargo:rustc-link-lib=static=kilntest");
    println!("cargo:rerun-if-changed=c/add.c");
}
