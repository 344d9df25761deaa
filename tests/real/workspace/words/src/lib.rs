//! Words, and a macro that other members expand.
#[macro_export]
macro_rules! shout {
    ($word:expr) => {
        format!("{}!", $crate::upper($word))
    };
}

pub fn upper(word: &str) -> String {
    debug_assert!(!word.is_empty(), "an empty word");
    word.to_uppercase()
}

pub fn place() -> &'static str {
    file!()
}
