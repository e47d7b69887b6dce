//! As a picture, laid out without Graphviz.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::{LineStyleKind, StyleAttr};
use layout::std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::model::{Edge, Graph, Kind, LeftOut, Link};

const FONT: usize = 13;
const BLACK: u32 = 0x0000_00ff;
const WHITE: u32 = 0xffff_ffff;
const BLUE: u32 = 0xadd8_e6ff;
const GREY: u32 = 0x8080_80ff;
const RED: u32 = 0xd000_00ff;

/// Bends from which on the finer steps take too long: their time grows with the cube of them.
const MOST_BENDS: usize = 150;

fn style(line: u32, fill: u32) -> StyleAttr {
    StyleAttr::new(Color::new(line), 1, Some(Color::new(fill)), 0, FONT)
}

/// The picture; `None` if the library cannot lay it out.
pub fn svg(graph: &Graph) -> Option<String> {
    // The library has assertions about what it made itself, which some graphs break. Without its finer steps they hold.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let plain = [(false, false), (false, true), (true, true)];
    let first = if bends(graph) > MOST_BENDS { 2 } else { 0 };
    let picture = plain.into_iter().skip(first).find_map(|(coarse, plainer)| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut writer = SVGWriter::new();
            // It counts rows down from one less than there are.
            if graph.nodes.is_empty() {
                return writer.finalize();
            }
            let mut visual = lay_out(graph);
            visual.do_it(false, coarse, plainer, &mut writer);
            sized(&writer.finalize(), &visual)
        }))
        .ok()
    });
    set_hook(hook);
    let note = match graph.left_out {
        LeftOut { sas: 0, policies: 0 } => return picture,
        left_out => format!("<text x=\"5\" y=\"{FONT}\" font-size=\"{FONT}\">{left_out}</text>"),
    };
    picture.map(|picture| picture.replacen("</defs>", &format!("</defs>{note}"), 1))
}

/// How many places lines go through between their ends: one for each column that they cross, and for each text.
fn bends(graph: &Graph) -> usize {
    let mut places: Vec<usize> = (0..graph.nodes.len()).collect();
    places.sort_by_key(|place| column(graph, *place));
    let mut below: Vec<Vec<(usize, bool)>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        let (left, right) = if column(graph, edge.from) <= column(graph, edge.to) {
            (edge.from, edge.to)
        } else {
            (edge.to, edge.from)
        };
        if let Some(below) = below.get_mut(left).filter(|_| left != right) {
            below.push((right, !edge.lines.is_empty()));
        }
    }
    // How far right each has to stand, from the left to the right.
    let mut ranks = vec![0_usize; graph.nodes.len()];
    for place in &places {
        let rank = ranks.get(*place).copied().unwrap_or(0);
        for (right, _) in below.get(*place).into_iter().flatten() {
            if let Some(other) = ranks.get_mut(*right) {
                *other = rank.saturating_add(1).max(*other);
            }
        }
    }
    let rank = |place: usize| ranks.get(place).copied().unwrap_or(0);
    let spans = below.iter().enumerate().flat_map(|(left, rights)| rights.iter().map(move |right| (left, right)));
    spans
        .map(|(left, (right, has_text))| rank(*right).saturating_sub(rank(left)) * if *has_text { 2 } else { 1 })
        .fold(0, |sum, span| sum.saturating_add(span.saturating_sub(1)))
}

/// With the size of what is in it: the library counts each text as higher than it is wide.
fn sized(picture: &str, visual: &VisualGraph) -> String {
    let corners = visual.iter_nodes().map(|node| visual.pos(node).bbox(false).1);
    let (width, height) = corners.fold((0_f64, 0_f64), |(x, y), corner| (x.max(corner.x), y.max(corner.y)));
    let (width, height) = (width.ceil() + 30.0, height.ceil() + 30.0);
    let parts = picture.split_once("<svg ").and_then(|(head, rest)| Some((head, rest.split_once('>')?.1)));
    parts.map_or_else(
        || picture.to_owned(),
        |(head, rest)| {
            let size = format!("width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\"");
            format!("{head}\n<svg {size} xmlns=\"http://www.w3.org/2000/svg\">{rest}\n")
        },
    )
}

/// The library's graph.
fn lay_out(graph: &Graph) -> VisualGraph {
    let mut visual = VisualGraph::new(Orientation::LeftToRight);
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| {
            let (shape, fill) = match node.kind {
                Kind::Gateway => (ShapeKind::new_box(&node.name), BLUE),
                Kind::Host => (ShapeKind::new_box(&node.name), WHITE),
                Kind::Network => (ShapeKind::new_circle(&node.name), WHITE),
            };
            let size = Point::new(0.7 * FONT as f64 * node.name.chars().count() as f64 + 20.0, 36.0);
            visual.add_node(Element::create(shape, style(BLACK, fill), Orientation::LeftToRight, size))
        })
        .collect();
    // It looks for cycles by walking every path, which is more than there is time for in a mesh. Given in this order no edge has a
    // path behind it yet.
    let mut edges: Vec<(usize, usize, Arrow)> = graph
        .edges
        .iter()
        .map(|edge| match arrow(edge) {
            arrow if column(graph, edge.from) <= column(graph, edge.to) => (edge.from, edge.to, arrow),
            arrow => (edge.to, edge.from, arrow.reverse()),
        })
        .collect();
    edges.sort_by_key(|(from, to, _)| (column(graph, *from), *to));
    for (from, to, arrow) in edges {
        let (Some(from), Some(to)) = (nodes.get(from), nodes.get(to)) else { continue };
        visual.add_edge(arrow, *from, *to);
    }
    // And it would check after each that there is none.
    visual.dag.set_validate(false);
    visual
}

/// Where a node stands: from this machine's networks on the left to others' on the right.
fn column(graph: &Graph, place: usize) -> (u8, usize) {
    let column = graph.nodes.get(place).map_or(0, |node| match (node.own, node.kind) {
        (true, Kind::Network) => 0,
        (true, _) => 1,
        (false, Kind::Gateway) => 2,
        (false, Kind::Host) => 3,
        (false, Kind::Network) => 4,
    });
    (column, place)
}

fn arrow(edge: &Edge) -> Arrow {
    let (line, end, colour) = match edge.link {
        Link::Sas => (LineStyleKind::Normal, LineEndKind::Arrow, BLACK),
        Link::Lacking => (LineStyleKind::Dashed, LineEndKind::Arrow, RED),
        Link::Behind => (LineStyleKind::Dotted, LineEndKind::None, GREY),
    };
    let text = edge.lines.join("\n");
    Arrow::new(LineEndKind::None, end, line, &text, &style(colour, WHITE), &None, &None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Node;
    use super::super::model::tests::two_gateways;
    use super::*;

    #[test]
    fn a_picture_has_every_name() {
        let svg = svg(&Graph::of(&two_gateways(), 10)).unwrap();
        assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"), "{svg}");
        for name in
            ["192.0.2.1", "198.51.100.2", "10.0.0.0/24", "10.1.0.0/24", "no SA", "esp tunnel aes-cbc hmac-sha1 ×2"]
        {
            assert!(svg.contains(&format!(">{name}")), "{name}: {svg}");
        }
        assert!(svg.contains("stroke=\"#d00000ff\""), "{svg}");
    }

    #[test]
    fn names_are_escaped() {
        let node = Node { name: "<script>&\"".to_owned(), kind: Kind::Host, own: false };
        let svg = svg(&Graph { nodes: vec![node], ..Graph::default() }).unwrap();
        assert!(svg.contains("&lt;script&gt;&amp;&quot;") && !svg.contains("<script"), "{svg}");
    }

    /// A library that walks every path does not come to its end here.
    #[test]
    fn everybody_talks_to_everybody() {
        let node = |n: usize| Node { name: n.to_string(), kind: Kind::Gateway, own: n < 7 };
        let pairs = (0..20).flat_map(|from| (0..from).map(move |to| (from, to)));
        let edges = pairs.map(|(from, to)| Edge { from, to, link: Link::Sas, lines: vec!["a line".to_owned()] });
        let graph = Graph { nodes: (0..20).map(node).collect(), edges: edges.collect(), ..Graph::default() };
        // 20 columns, and from each to each one behind it: 2 × 1330 less 190.
        assert_eq!(bends(&graph), 2470);
        assert_eq!(svg(&graph).unwrap().matches("<path id=\"arrow").count(), 190);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is connected with whatever, also with itself and more than once.
        #[test]
        fn every_graph_is_laid_out(edges in proptest::collection::vec((0_usize..12, 0_usize..12, 0_usize..3), 0..40)) {
            let nodes = (0..12).map(|n| Node { name: n.to_string(), kind: Kind::Gateway, own: n % 2 == 0 }).collect();
            let edges = edges.into_iter().map(|(from, to, link)| Edge {
                from,
                to,
                link: [Link::Sas, Link::Lacking, Link::Behind][link],
                lines: if link == 2 { Vec::new() } else { vec!["a line".to_owned(); link + 1] },
            });
            let graph = Graph { nodes, edges: edges.collect(), left_out: LeftOut { sas: 1, policies: 1 } };
            prop_assert!(svg(&graph).is_some());
        }
    }
}
