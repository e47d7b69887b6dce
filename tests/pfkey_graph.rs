//! `pfkey graph`: as a tree, in Graphviz's language, as a picture.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/python.rs"]
mod python;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use daemon::Daemon;

const FILE: &str = r#"
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd -k 10.1.0.0/24 10.0.0.0/24 any -P in ipsec esp/tunnel/198.51.100.2-192.0.2.1/require;
"#;

/// Without what a second changes.
fn ageless(text: &str) -> String {
    let without = |line: &str| match line.rsplit_once(", ") {
        Some((head, age)) if age.ends_with(" s old") => format!("{head}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(without).collect()
}

#[test]
fn a_tree() {
    let daemon = Daemon::holding("graph_tree", FILE);
    let expected = "192.0.2.1 ⇄ 198.51.100.2\n\
        ├─ → esp tunnel aes-cbc hmac-sha1\n\
        ├─ in 10.1.0.0/24 → 10.0.0.0/24  no SA\n\
        └─ out 10.0.0.0/24 → 10.1.0.0/24\n";
    assert_eq!(ageless(&daemon.ok(&["graph", "--text"])), expected);
}

/// Nothing that reads Graphviz's language is a terminal.
#[test]
fn graphvizs_language() {
    let daemon = Daemon::holding("graph_dot", FILE);
    let text = daemon.ok(&["graph"]);
    assert_eq!(daemon.ok(&["graph", "--dot"]).lines().count(), text.lines().count());
    assert!(text.starts_with("digraph pfkey {\n") && text.ends_with("}\n"), "{text}");
    let lacking = "n0 -> n1 [label=\"in 10.1.0.0/24 → 10.0.0.0/24\\nno SA\", color=red, fontcolor=red, style=dashed];";
    assert!(text.contains(lacking), "{text}");
}

#[test]
fn a_picture() {
    let daemon = Daemon::holding("graph_svg", FILE);
    let path = c::scratch("graph_svg_out").join("a.svg");
    assert_eq!(daemon.ok(&["graph", "--svg", path.to_str().unwrap()]), "");
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.contains("10.0.0.0/24") && svg.contains("no SA"), "{svg}");
    assert!(daemon.ok(&["graph", "--svg"]).starts_with("<?xml"));
    let Some(python) = python::with("xml.etree.ElementTree", "python3") else { return };
    let names =
        "import sys, xml.etree.ElementTree as e; print(len(e.fromstring(sys.stdin.buffer.read()).findall('.//*')))";
    assert!(python.run(names, &svg).trim().parse::<usize>().unwrap() > 10);
}

#[test]
fn json_has_the_same_lines() {
    let daemon = Daemon::holding("graph_json", FILE);
    let value: serde_json::Value = serde_json::from_str(&daemon.ok(&["--json", "graph"])).unwrap();
    let links: Vec<_> = value["edges"].as_array().unwrap().iter().map(|edge| edge["link"].as_str().unwrap()).collect();
    assert_eq!(links, ["lacking", "sas", "behind", "behind"]);
    assert_eq!((&value["edges"][1]["from"], &value["edges"][1]["from_kind"]), (&"192.0.2.1".into(), &"gateway".into()));
    assert_eq!(daemon.run(&["--json", "graph", "--dot"]).status.code(), Some(2));
}

#[test]
fn an_empty_one() {
    let daemon = Daemon::holding("graph_empty", "flush;");
    assert_eq!(daemon.ok(&["graph", "--text"]), "");
    assert_eq!(daemon.ok(&["graph"]).lines().count(), 3);
    assert!(daemon.ok(&["graph", "--svg"]).ends_with("</svg>"));
}

/// Nobody reads a picture of all of them, and nobody waits for it.
#[test]
fn ten_thousand_sas() {
    let mut text = String::new();
    for i in 0..5000 {
        let (a, b) = ("192.0.2.1", format!("10.{}.{}.1", i / 250, i % 250));
        let _ = writeln!(
            text,
            "add {a} {b} esp {:#x} -m tunnel -E null; add {b} {a} esp {:#x} -m tunnel -E null;",
            0x1000 + i,
            0x9000 + i
        );
    }
    let daemon = Daemon::holding("graph_many", &text);
    for (arguments, told) in [
        (&["graph", "--dot"][..], ""),
        (&["graph", "--svg"], ""),
        (&["graph", "--text"], "pfkey: 9800 SAs and 0 policies are not shown (--most)\n"),
    ] {
        let began = Instant::now();
        let output = daemon.run(arguments);
        assert!(began.elapsed() < Duration::from_secs(60), "{arguments:?} took {:?}", began.elapsed());
        println!("{arguments:?}: {:?}", began.elapsed());
        assert_eq!(String::from_utf8_lossy(&output.stderr), told);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && printed.len() > 5000, "{printed}");
        if told.is_empty() {
            assert!(printed.contains("9900 SAs and 0 policies are not shown (--most)"), "{arguments:?}");
        }
    }
}
