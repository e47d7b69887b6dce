//! pfkeyd
fn main() {}
