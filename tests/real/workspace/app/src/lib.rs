#[derive(derive::Named)]
pub struct Report;

pub fn report() -> String {
    let sum: u32 = gen::SQUARES.iter().sum();
    format!("{} {} {} {}", words::shout!(Report::name()), sum, clib::add(2, 3), gen::LABEL)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_report_is_complete() {
        assert_eq!(super::report(), "REPORT! 140 5 generated");
    }
}
