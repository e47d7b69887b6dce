//! docs/rfc2367.md lists every item once and names the tests that exist.

use std::collections::BTreeSet;

const SOURCES: [&str; 4] =
    [include_str!("framing.rs"), include_str!("algorithms.rs"), include_str!("life.rs"), include_str!("messages.rs")];

#[test]
fn every_item_has_a_row_and_every_test_is_named() {
    let text = include_str!("../../docs/rfc2367.md");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| line.starts_with("| C"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1], cells[3])
        })
        .collect();
    let items: Vec<String> = rows.iter().map(|(item, _)| (*item).to_owned()).collect();
    let wanted: Vec<String> = (1..=106).map(|n| format!("C{n:03}")).collect();
    assert_eq!(items, wanted);
    let named: BTreeSet<String> = rows
        .iter()
        .flat_map(|(_, how)| how.split('`').skip(1).step_by(2))
        .filter(|name| name.starts_with("c0") || name.starts_with("c1"))
        .map(str::to_owned)
        .collect();
    let tests: BTreeSet<String> = SOURCES
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.strip_prefix("fn c"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| format!("c{name}")))
        .collect();
    assert_eq!(named, tests);
}
