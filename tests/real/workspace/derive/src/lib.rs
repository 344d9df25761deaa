use std::collections::HashMap;

use proc_macro::{TokenStream, TokenTree};

/// Implements `name()` for a struct; walks a HashMap on its way, whose order must not reach the output of two builds.
#[proc_macro_derive(Named)]
pub fn named(input: TokenStream) -> TokenStream {
    let mut tokens = input.into_iter();
    let name = loop {
        match tokens.next() {
            Some(TokenTree::Ident(word)) if word.to_string() == "struct" => match tokens.next() {
                Some(TokenTree::Ident(name)) => break name.to_string(),
                _ => panic!("a struct needs a name"),
            },
            Some(_) => continue,
            None => panic!("only structs can be named"),
        }
    };
    let order: HashMap<u32, u32> = (0..16).map(|n| (n, n)).collect();
    let listed: Vec<String> = order.keys().map(u32::to_string).collect();
    format!(
        "impl {name} {{ pub fn name() -> &'static str {{ \"{name}\" }} pub fn order() -> &'static str {{ \"{}\" }} }}",
        listed.join(",")
    )
    .parse()
    .expect("valid Rust")
}
