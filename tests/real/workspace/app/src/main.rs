fn main() {
    println!("{} {} {}", app::report(), multi::multi_length(1234), file!());
}
