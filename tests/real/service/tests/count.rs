#[test]
fn the_program_counts() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_service")).args(["--once", "a b a"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"[{"word":"a","times":2},{"word":"b","times":1}]"#);
}
