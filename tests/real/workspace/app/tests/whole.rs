#[test]
fn places_are_the_callers_own() {
    assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../words/src/lib.rs").exists());
    assert_eq!(words::place(), "words/src/lib.rs");
    assert_eq!(gen::TABLE.lines().count(), 2);
}
