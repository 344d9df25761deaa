use std::{env, fs, path::Path};

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let squares: Vec<String> = (0u32..8).map(|n| (n * n).to_string()).collect();
    let text = format!("pub const SQUARES: [u32; 8] = [{}];\n", squares.join(", "));
    fs::write(Path::new(&out).join("squares.rs"), text).expect("write squares.rs");
    println!("cargo:rustc-env=GEN_LABEL=generated");
    println!("cargo:rerun-if-changed=build.rs");
}
