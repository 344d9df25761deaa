//! A small service: the words of a text, counted in parallel, and the functions of a Rust source, listed.
use std::collections::BTreeMap;

use rayon::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub struct Count {
    pub word: String,
    pub times: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a Rust source: {0}")]
    Syntax(#[from] syn::Error),
}

pub fn count_words(text: &str) -> Vec<Count> {
    let word = Regex::new(r"[[:alpha:]]+").expect("a valid pattern");
    let lines: Vec<&str> = text.lines().collect();
    let counts = lines
        .par_iter()
        .map(|line| {
            let mut counts = BTreeMap::new();
            for found in word.find_iter(line) {
                *counts.entry(found.as_str().to_lowercase()).or_insert(0usize) += 1;
            }
            counts
        })
        .reduce(BTreeMap::new, |mut left, right| {
            for (word, times) in right {
                *left.entry(word).or_insert(0) += times;
            }
            left
        });
    counts.into_iter().map(|(word, times)| Count { word, times }).collect()
}

pub fn function_names(source: &str) -> Result<Vec<String>, Error> {
    let file = syn::parse_file(source)?;
    Ok(file
        .items
        .into_iter()
        .filter_map(|item| match item {
            syn::Item::Fn(function) => Some(function.sig.ident.to_string()),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_over_lines() {
        let counts = count_words("one two\nTwo three");
        assert_eq!(counts[2], Count { word: "two".into(), times: 2 });
    }

    #[test]
    fn functions_are_listed() {
        assert_eq!(function_names("fn a() {} struct S; fn b() {}").unwrap(), ["a", "b"]);
    }
}
