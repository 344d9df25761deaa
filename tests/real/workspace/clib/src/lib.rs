extern "C" {
    fn kilntest_add(a: i32, b: i32) -> i32;
}

pub fn add(a: i32, b: i32) -> i32 {
    // SAFETY: the C function reads its two arguments only.
    unsafe { kilntest_add(a, b) }
}
