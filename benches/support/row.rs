//! A row of the table of `make bench`: what a piece of work takes, beside the least that could do it, measured in turns.
//!
//! `PFKEY_BENCH_JSON=FILE` appends each row to that file, an object a line.

// No bench needs all of it.
#![allow(dead_code)]

use std::fmt::Write as _;

/// Times that a piece of work and its limit are measured.
pub const ROUNDS: usize = 7;

/// What a figure is to be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most so many times the limit.
    Ratio(f64),
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
    /// A figure to know.
    None,
}

/// One figure in several rounds.
pub struct Row<'a> {
    pub work: &'a str,
    pub unit: &'a str,
    pub ours: Vec<f64>,
    /// What it is held against, and that figure in the same rounds. None: an absolute figure.
    pub limit: Option<(&'a str, Vec<f64>)>,
    pub goal: Goal,
}

/// Measures both in turns, so that what else the machine does meets both.
pub fn in_turns(mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) -> (Vec<f64>, Vec<f64>) {
    (0..ROUNDS).map(|_| (ours(), limit())).unzip()
}

/// The middle of some figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a part of some sorted figures does not exceed; no number if there are none.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Three digits that say something.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn heading() {
    println!(
        "{:<52}{:>10} {:<6}{:>9}{:>7}  {:<15}{:<16}limit",
        "work", "ours", "", "limit", "ratio", "least to most", "goal"
    );
}

impl Row<'_> {
    fn ratios(&self) -> Vec<f64> {
        let limit = self.limit.iter().flat_map(|(_, figures)| figures);
        self.ours.iter().zip(limit).map(|(ours, limit)| ours / limit).collect()
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal {
            Goal::Ratio(most) => Some(median(&self.ratios()) <= most),
            Goal::Most(most) => Some(median(&self.ours) <= most),
            Goal::Least(least) => Some(median(&self.ours) >= least),
            Goal::None => None,
        }
    }

    /// Prints it.
    pub fn show(&self) {
        let ratios = self.ratios();
        // The spread is that of the ratio, or of the figure if there is none.
        let spread = if ratios.is_empty() { &self.ours } else { &ratios };
        let least = spread.iter().copied().fold(f64::INFINITY, f64::min);
        let most = spread.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let goal = match self.goal {
            Goal::Ratio(most) => format!("≤ {most} ×"),
            Goal::Most(most) => format!("≤ {}", digits(most)),
            Goal::Least(least) => format!("≥ {}", digits(least)),
            Goal::None => String::new(),
        };
        let verdict = self.is_met().map_or("", |met| if met { " met" } else { " MISSED" });
        let (limit, ratio, name) = match &self.limit {
            Some((name, figures)) => (digits(median(figures)), digits(median(&ratios)), *name),
            None => (String::new(), String::new(), ""),
        };
        let spread = format!("{} to {}", digits(least), digits(most));
        println!(
            "{:<52}{:>10} {:<6}{limit:>9}{ratio:>7}  {spread:<15}{:<16}{name}",
            self.work,
            digits(median(&self.ours)),
            self.unit,
            format!("{goal}{verdict}"),
        );
        if let Some(path) = std::env::var_os("PFKEY_BENCH_JSON") {
            let line = self.json();
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            std::io::Write::write_all(&mut file.expect("a file for the figures"), line.as_bytes()).expect("written");
        }
    }

    fn json(&self) -> String {
        let list = |figures: &[f64]| figures.iter().map(|f| format!("{f:.6}")).collect::<Vec<_>>().join(",");
        let mut line = format!("{{\"work\":{:?},\"unit\":{:?},\"ours\":[{}]", self.work, self.unit, list(&self.ours));
        if let Some((name, figures)) = &self.limit {
            let _ = write!(line, ",\"limit\":{name:?},\"limit_took\":[{}]", list(figures));
        }
        if let Some(met) = self.is_met() {
            let _ = write!(line, ",\"met\":{met}");
        }
        line.push_str("}\n");
        line
    }
}
