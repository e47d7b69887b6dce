//! How large the files are that are installed, without symbols.

#[path = "support/row.rs"]
mod row;

use std::process::Command;

use row::{Goal, Row};

fn main() {
    row::heading();
    let own = std::env::current_exe().expect("this program's path");
    let built = own.ancestors().nth(2).expect("target/release");
    let stripped = std::env::temp_dir().join(format!("pfkey-size-{}", std::process::id()));
    for (file, goal) in [
        ("libpfkey_rs.so", Goal::Most(400.0)),
        ("libpfkey_preload.so", Goal::Most(150.0)),
        ("pfkeyd", Goal::Most(700.0)),
        ("pfkey", Goal::None),
    ] {
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(built.join(file)).output().expect("strip");
        if !strip.status.success() {
            println!("{file}: not measured; first `make build`: {}", String::from_utf8_lossy(&strip.stderr).trim());
            continue;
        }
        let bytes = std::fs::metadata(&stripped).expect("what strip wrote").len();
        Row { work: file, unit: "KiB", ours: vec![bytes as f64 / 1024.0], limit: None, goal }.show();
    }
    let _ = std::fs::remove_file(&stripped);
}
