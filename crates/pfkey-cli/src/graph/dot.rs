//! In Graphviz's language.

use std::fmt::Write as _;

use super::model::{Graph, Kind, LeftOut, Link};

/// A text in quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            // Graphviz would take what follows for an instruction (`\N` is the node's name).
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push('?'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The picture as a digraph.
pub fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph pfkey {\n  rankdir=LR;\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        // A String takes everything.
        let _ = writeln!(text, "  {line}");
    };
    if graph.left_out != LeftOut::default() {
        line(format_args!("label={};", quoted(&graph.left_out.to_string())));
    }
    for (place, node) in graph.nodes.iter().enumerate() {
        let shape = match node.kind {
            Kind::Gateway => "box, style=filled, fillcolor=lightblue",
            Kind::Host => "box",
            Kind::Network => "ellipse",
        };
        line(format_args!("n{place} [label={}, shape={shape}];", quoted(&node.name)));
    }
    for edge in &graph.edges {
        let label = quoted(&edge.lines.join("\n"));
        let look = match edge.link {
            Link::Sas => format!("label={label}"),
            Link::Lacking => format!("label={label}, color=red, fontcolor=red, style=dashed"),
            Link::Behind => "dir=none, style=dotted".to_owned(),
        };
        line(format_args!("n{} -> n{} [{look}];", edge.from, edge.to));
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use layout::gv::DotParser;

    use super::super::model::tests::two_gateways;
    use super::super::model::{Edge, Node};
    use super::*;

    #[test]
    fn another_parser_reads_it() {
        let text = dot(&Graph::of(&two_gateways(), 10));
        assert!(DotParser::new(&text).process().is_ok(), "{text}");
        let lacking =
            "n0 -> n1 [label=\"in 10.1.0.0/24 → 10.0.0.0/24\\nno SA\", color=red, fontcolor=red, style=dashed];";
        assert!(text.contains(lacking), "{text}");
        assert!(text.contains("n2 [label=\"10.0.0.0/24\", shape=ellipse];"), "{text}");
        assert!(!text.contains("not shown"), "{text}");
        let less = dot(&Graph::of(&two_gateways(), 1));
        assert!(less.contains("label=\"2 SAs and "), "{less}");
    }

    /// By the rules of Graphviz's grammar for quoted strings.
    #[test]
    fn names_are_escaped() {
        assert_eq!(quoted("a\"b\\N\nc\x1bd"), "\"a\\\"b\\\\N\\nc?d\"");
        let node = Node { name: "\"]; evil [label=\"".to_owned(), kind: Kind::Host, own: false };
        let edge = Edge { from: 0, to: 0, link: Link::Sas, lines: vec!["\" -> \"".to_owned()] };
        let text = dot(&Graph { nodes: vec![node], edges: vec![edge], ..Graph::default() });
        assert!(text.contains("n0 [label=\"\\\"]; evil [label=\\\"\", shape=box];"), "{text}");
        assert!(DotParser::new(&text).process().is_ok(), "{text}");
    }
}
