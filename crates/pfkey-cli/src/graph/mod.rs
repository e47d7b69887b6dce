//! `graph`: who talks to whom, as a tree, in Graphviz's language or as a picture.

mod dot;
mod model;
mod svg;
mod tree;

use std::io::Write as _;
use std::path::PathBuf;

#[cfg(test)]
pub use model::tests;
pub use model::words;

use crate::channel::Channel;
use crate::failure::Failure;
use crate::output::{Format, Out, Record, Value, View, show};
use crate::overview::Snapshot;
use crate::private_file::publish;
use crate::tell::tell;
use model::{Graph, Kind, LeftOut};
use tree::{Line, tree};

/// How it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum As {
    /// A tree on a terminal, otherwise in Graphviz's language.
    WhatFits,
    /// A tree.
    Text,
    /// In Graphviz's language.
    Dot,
    /// A picture, in a file or on standard output.
    Svg(Option<PathBuf>),
}

/// Shows it, with so many lines of it at most.
pub fn graph(view: View, shown: &As, most: usize) -> Result<(), Failure> {
    let snapshot = Snapshot::read(&mut Channel::open()?)?;
    let mut out = Out::new();
    let left_out = match (shown, view.format) {
        (As::WhatFits, Format::Json) => {
            let graph = Graph::of(&snapshot, most);
            show(&mut out, view, "edges", &[], &records(&graph))?;
            graph.left_out
        }
        (_, Format::Json) => return Err(Failure::Usage("graph: JSON, or one of the others".to_owned())),
        (As::Text, _) | (As::WhatFits, Format::Table { .. }) => text(&mut out, view, &snapshot, most)?,
        (As::WhatFits | As::Dot, _) => {
            let graph = Graph::of(&snapshot, most);
            out.write_all(dot::dot(&graph).as_bytes())?;
            // It says so itself.
            LeftOut::default()
        }
        (As::Svg(path), _) => {
            let graph = Graph::of(&snapshot, most);
            let svg = svg::svg(&graph).ok_or_else(|| {
                Failure::Told("graph: this picture could not be laid out; --dot is for Graphviz".to_owned())
            })?;
            match path {
                Some(path) => publish(path, svg.as_bytes())?,
                None => out.write_all(svg.as_bytes())?,
            }
            LeftOut::default()
        }
    };
    out.flush()?;
    if left_out != LeftOut::default() {
        tell(left_out);
    }
    Ok(())
}

fn text(out: &mut Out, view: View, snapshot: &Snapshot, most: usize) -> Result<LeftOut, Failure> {
    let (lines, left_out) = tree(snapshot, most);
    let coloured = matches!(view.format, Format::Table { colour: true });
    for (line, text) in lines {
        let (on, off) = match line {
            _ if !coloured => ("", ""),
            Line::Pair => ("\x1b[1m", "\x1b[0m"),
            Line::Lacking => ("\x1b[31m", "\x1b[0m"),
            Line::Plain => ("", ""),
        };
        writeln!(out, "{on}{text}{off}")?;
    }
    Ok(left_out)
}

fn records(graph: &Graph) -> Vec<Record> {
    let node = |place: usize| graph.nodes.get(place);
    let kind = |place: usize| match node(place).map(|node| node.kind) {
        Some(Kind::Gateway) => "gateway",
        Some(Kind::Network) => "network",
        _ => "host",
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let name = |place: usize| Value::Text(node(place).map(|node| node.name.clone()).unwrap_or_default());
    let record = |edge: &model::Edge| {
        vec![
            ("from", name(edge.from)),
            ("from_kind", text(kind(edge.from))),
            ("to", name(edge.to)),
            ("to_kind", text(kind(edge.to))),
            ("link", text(edge.link.name())),
            ("lines", Value::List(edge.lines.clone())),
        ]
    };
    graph.edges.iter().map(record).collect()
}
