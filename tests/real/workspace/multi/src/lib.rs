#[no_mangle]
pub extern "C" fn multi_length(number: u32) -> usize {
    words::upper(&number.to_string()).len()
}
