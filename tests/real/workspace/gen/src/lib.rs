include!(concat!(env!("OUT_DIR"), "/squares.rs"));

pub const LABEL: &str = env!("GEN_LABEL");
pub const TABLE: &str = include_str!("table.txt");
