// attack!("NAME ARGUMENT"): a proc macro that does one of the deeds of deeds.c inside the compiler.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::ffi::{c_char, c_int, CString};

extern "C" {
    fn kiln_attack(name: *const c_char, argument: *const c_char) -> c_int;
}

#[proc_macro]
pub fn attack(input: TokenStream) -> TokenStream {
    let text = input.to_string();
    let (name, argument) = text.trim_matches('"').split_once(' ').unwrap();
    let (name, argument) = (CString::new(name).unwrap(), CString::new(argument).unwrap());
    assert_eq!(unsafe { kiln_attack(name.as_ptr(), argument.as_ptr()) }, 0);
    TokenStream::new()
}
