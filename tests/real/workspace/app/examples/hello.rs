fn main() {
    println!("{}", words::shout!("hello"));
}
