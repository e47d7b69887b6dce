//! One frame, for scripts and tests: as text, or as a line of JSON for each group and SA.

use std::io;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::app::{App, Row};
use super::draw::draw;
use super::model::{Group, Item, Way};
use crate::model::names;
use crate::output::{Record, Value};
use pfkey_wire::SaState;

/// The lines of a screen, without blanks at their ends.
pub fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    buffer.content().chunks(width).map(line).collect()
}

/// A frame of this size.
///
/// # Errors
/// None of this backend, which is memory.
pub fn frame(app: &mut App, width: u16, height: u16) -> io::Result<Vec<String>> {
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| draw(frame, app))?;
    Ok(lines(terminal.backend().buffer()))
}

/// What there is altogether, then each group and its SAs, as they stand on the screen.
pub fn records(app: &App) -> Vec<Record> {
    let rows = app.rows.iter().filter_map(|row| match (row, app.at(*row)?) {
        (Row::Group(_), (group, _)) => Some(of_group(group)),
        (Row::Sa(..), (_, item)) => item.map(|item| of_sa(item, app.model.now)),
    });
    std::iter::once(total(app)).chain(rows).collect()
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn number(number: usize) -> Value {
    Value::Number(number as u64)
}

fn total(app: &App) -> Record {
    let model = &app.model;
    let sum = |rate: fn(&Group) -> f64| model.groups.iter().map(rate).sum::<f64>() as u64;
    vec![
        ("kind", text("total")),
        ("time", text(crate::model::utc(model.now))),
        ("sas", number(model.sas)),
        ("dying", number(model.dying)),
        ("acquires_waiting", number(model.acquires)),
        ("policies", number(model.rules.len())),
        ("policies_without_sa", number(model.lacking)),
        ("in_bytes_per_second", Value::Number(sum(|group| group.into))),
        ("out_bytes_per_second", Value::Number(sum(|group| group.out))),
        ("moved_counters", Value::List(model.moved.iter().map(|moved| moved.name.clone()).collect())),
    ]
}

fn of_group(group: &Group) -> Record {
    let mut record = vec![("kind", text("group"))];
    record.extend(group.key.0.map(|peer| ("peer", text(peer.to_string()))));
    if !group.key.1.is_empty() {
        record.push(("policy", text(group.key.1.clone())));
    }
    record.extend([
        ("sas", number(group.items.len())),
        ("lacking", Value::List(group.lacks.iter().cloned().collect())),
        ("in_bytes_per_second", Value::Number(group.into as u64)),
        ("out_bytes_per_second", Value::Number(group.out as u64)),
        ("refused_packets", Value::Number(group.refused)),
    ]);
    record.extend(group.left.map(|left| ("seconds_left", Value::Number(left))));
    record
}

fn of_sa(item: &Item, now: u64) -> Record {
    let sa = &item.sa;
    let mut record = vec![
        ("kind", text("sa")),
        ("way", text(if item.way == Way::Out { "out" } else { "in" })),
        ("protocol", text(sa.protocol())),
        ("spi", Value::Hex(sa.spi)),
        ("source", text(sa.ends.src().to_string())),
        ("destination", text(sa.ends.dst().to_string())),
        ("mode", text(names::mode(sa.mode.0))),
        ("reqid", Value::Number(sa.reqid.into())),
        ("state", text(names::state(SaState::from(sa.state).0))),
    ];
    let algorithms =
        [("encryption", sa.encryption()), ("authentication", sa.authentication()), ("compression", sa.compression())];
    record.extend(algorithms.into_iter().filter_map(|(name, algorithm)| Some((name, text(algorithm?)))));
    record.extend([
        ("bytes", Value::Number(sa.usage.bytes)),
        ("packets", Value::Number(sa.usage.packets)),
        ("bytes_per_second", Value::Number(item.bytes as u64)),
        ("packets_per_second", Value::Number(item.packets as u64)),
    ]);
    if sa.failures.is_some() {
        record.push(("refused_packets", Value::Number(item.refused())));
    }
    record.extend(sa.seconds_left(now).map(|left| ("seconds_left", Value::Number(left))));
    record
}
