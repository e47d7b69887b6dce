//! OpenMetrics text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), written so that readers of Prometheus's older text
//! format, such as node_exporter's textfile collector, understand it too: gauges and counters only.

use std::fmt::{Display, Write as _};

/// What a family's numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They go up and down.
    Gauge,
    /// They go up, or begin again.
    Counter,
}

/// A label's name and value; one without a value is left out, which means the same.
pub type Label<'a> = (&'a str, &'a str);

/// A text that grows.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
    /// What samples are called.
    sample: String,
}

impl Text {
    /// Begins a family. A unit has to be the end of its name.
    pub fn family(&mut self, name: &str, kind: Kind, unit: &str, help: &str) {
        let (kind, suffix) = match kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
        };
        self.line(format_args!("# TYPE {name} {kind}"));
        if !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name} {help}"));
        self.sample = format!("{name}{suffix}");
    }

    /// A number of the family that was begun last.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(&self.sample);
        let mut before = '{';
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.text.extend(value.chars().flat_map(|c| {
                let (escape, c) = match c {
                    '\\' | '"' => (Some('\\'), c),
                    '\n' => (Some('\\'), 'n'),
                    _ => (None, c),
                };
                escape.into_iter().chain([c])
            }));
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = writeln!(self.text, "{line}");
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification's ABNF has it.
    #[test]
    fn families_and_samples() {
        let mut text = Text::default();
        text.family("a_bytes", Kind::Gauge, "bytes", "Bytes.");
        text.sample(&[], 1);
        text.sample(&[("x", "a\\b\"c\nd"), ("empty", ""), ("y", "é")], 0.5);
        text.family("b", Kind::Counter, "", "Things.");
        text.sample(&[("empty", "")], 2);
        let expected = "# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes Bytes.\na_bytes 1\n\
            a_bytes{x=\"a\\\\b\\\"c\\nd\",y=\"é\"} 0.5\n# TYPE b counter\n# HELP b Things.\nb_total 2\n# EOF\n";
        assert_eq!(text.finish(), expected);
    }
}
