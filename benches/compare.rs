//! How the rows of two runs of `benches/run` compare: `compare OLD.json NEW.json`.

#[path = "support/row.rs"]
mod row;

use serde_json::Value;

/// A row's work and what it is held against, its unit, and its middle figure.
fn rows(path: &str) -> Vec<(String, String, f64)> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let read = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{path}: {error}"));
        let ours: Vec<f64> = row["ours"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let beside = word(&row, "limit");
        let work = word(&row, "work") + if beside.is_empty() { "" } else { " / " } + &beside;
        (work, word(&row, "unit"), row::median(&ours))
    };
    text.lines().map(read).collect()
}

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let [old, new] = files.as_slice() else { return println!("compare OLD.json NEW.json") };
    let old = rows(old);
    println!("{:<84}{:>12}{:>12} {:<6}{:>8}", "work", "before", "now", "", "ratio");
    for (work, unit, now) in rows(new) {
        match old.iter().find(|(known, _, _)| *known == work) {
            Some((_, _, before)) => println!("{work:<84}{before:>12.3}{now:>12.3} {unit:<6}{:>8.3}", now / before),
            None => println!("{work:<84}{:>12}{now:>12.3} {unit:<6}", "-"),
        }
    }
}
