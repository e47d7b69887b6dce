//! Output: a buffer that is wiped, and records shown as a table, as plain lines or as JSON.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::{Zeroize, Zeroizing};

use crate::json;
use crate::tell::tell;

/// Bytes that are written at once.
const CAPACITY: usize = 64 * 1024;
/// The version of the JSON texts' structure.
const SCHEMA: u64 = 1;

/// Standard output or a file, behind a buffer that never grows and is wiped, because keys pass through it.
pub struct Out {
    buffer: Zeroizing<Vec<u8>>,
    file: Option<File>,
}

impl Out {
    /// Standard output, nothing written yet.
    pub fn new() -> Self {
        Self { buffer: Zeroizing::new(Vec::with_capacity(CAPACITY)), file: None }
    }

    /// A file.
    pub fn to(file: File) -> Self {
        Self { file: Some(file), ..Self::new() }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CAPACITY - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == CAPACITY {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let written = match &self.file {
                Some(file) => nix::unistd::write(file, rest),
                None => nix::unistd::write(io::stdout(), rest),
            };
            match written {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.buffer.as_mut_slice().zeroize();
        self.buffer.clear();
        Ok(())
    }
}

/// How records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns with a heading.
    Table {
        /// Whether to use the terminal's colours.
        colour: bool,
    },
    /// One line a record, `name=value` separated by blanks.
    Plain,
    /// One JSON text, or for [`crate::monitor`] one a line.
    Json,
}

/// What the user wants to see.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// How.
    pub format: Format,
    /// Whether keys are shown.
    pub show_keys: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
}

impl View {
    /// From the options and what standard output is.
    pub fn new(json: bool, show_keys: bool) -> Self {
        let format = match (json, io::stdout().is_terminal()) {
            (true, _) => Format::Json,
            (false, true) => Format::Table { colour: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) },
            (false, false) => Format::Plain,
        };
        Self { format, show_keys, width: terminal_size().map(|(columns, _)| columns.into()) }
    }
}

/// Columns and lines of the terminal that standard output is.
pub fn terminal_size() -> Option<(u16, u16)> {
    let size = io::stdout().is_terminal().then(ratatui::crossterm::terminal::window_size)?.ok()?;
    (size.columns > 0 && size.rows > 0).then_some((size.columns, size.rows))
}

/// A value of a record.
#[derive(Clone)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// A number that people read in hexadecimal.
    Hex(u32),
    /// A key.
    Key(Zeroizing<Vec<u8>>),
    /// Texts in order.
    List(Vec<String>),
    /// What programs read as an object of its own.
    Record(Record),
    /// The same, more than one.
    Records(Vec<Record>),
    /// What people read as words, and programs as a value.
    Said(String, Box<Value>),
    /// What only programs read, because people read it elsewhere.
    Unsaid(Box<Value>),
}

/// One object: names and values.
pub type Record = Vec<(&'static str, Value)>;

/// A key as `0x` and digits.
pub fn hex(key: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 + key.len() * 2));
    text.push_str("0x");
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

impl Value {
    /// As text, without a key.
    pub fn to_plain(&self) -> String {
        self.text(false).as_str().to_owned()
    }

    fn text(&self, show_keys: bool) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Hex(number) => format!("{number:#010x}"),
            Self::Key(key) if show_keys => return hex(key),
            Self::Key(_) => "hidden".to_owned(),
            Self::List(items) => items.join(" "),
            Self::Said(text, _) => text.clone(),
            // Nobody shows these to people.
            Self::Record(_) | Self::Records(_) | Self::Unsaid(_) => String::new(),
        })
    }
}

/// A value as JSON: hexadecimal is for people only.
struct JsonValue<'r> {
    value: &'r Value,
    show_keys: bool,
}

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Text(text) => serializer.serialize_str(text),
            Value::Number(number) => serializer.serialize_u64(*number),
            Value::Hex(number) => serializer.serialize_u32(*number),
            Value::Key(key) if self.show_keys => serializer.serialize_str(&hex(key)),
            Value::Key(_) => serializer.serialize_none(),
            Value::List(items) => serializer.collect_seq(items),
            Value::Record(record) => JsonRecord { record, show_keys: self.show_keys }.serialize(serializer),
            Value::Records(records) => Records(records, self.show_keys).serialize(serializer),
            Value::Said(_, value) | Value::Unsaid(value) => {
                JsonValue { value, show_keys: self.show_keys }.serialize(serializer)
            }
        }
    }
}

/// A record as a JSON object.
pub struct JsonRecord<'r> {
    /// It.
    pub record: &'r Record,
    /// Whether its keys are shown.
    pub show_keys: bool,
}

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let show_keys = self.show_keys;
        serializer.collect_map(self.record.iter().map(|(name, value)| (name, JsonValue { value, show_keys })))
    }
}

/// A record as a JSON text of its own on a line, which says its version.
pub fn json_line(out: &mut Out, record: &Record, show_keys: bool) -> io::Result<()> {
    struct Line<'r>(&'r Record, bool);
    impl Serialize for Line<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut object = serializer.serialize_map(None)?;
            object.serialize_entry("schema", &SCHEMA)?;
            for (name, value) in self.0 {
                object.serialize_entry(name, &JsonValue { value, show_keys: self.1 })?;
            }
            object.end()
        }
    }
    json::write(out, &Line(record, show_keys))?;
    writeln!(out)
}

/// Records as the only array of a JSON object.
struct JsonListing<'r> {
    kind: &'r str,
    records: &'r [Record],
    show_keys: bool,
}

/// Records as an array, with keys or without.
struct Records<'r>(&'r [Record], bool);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|record| JsonRecord { record, show_keys: self.1 }))
    }
}

impl Serialize for JsonListing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(2))?;
        object.serialize_entry("schema", &SCHEMA)?;
        object.serialize_entry(self.kind, &Records(self.records, self.show_keys))?;
        object.end()
    }
}

/// Shows records. `kind` names the JSON text's array; `columns` are what a table shows, in order.
pub fn show(out: &mut Out, view: View, kind: &str, columns: &[&'static str], records: &[Record]) -> io::Result<()> {
    match view.format {
        Format::Json => {
            json::write(out, &JsonListing { kind, records, show_keys: view.show_keys })?;
            writeln!(out)?;
        }
        Format::Plain => {
            for record in records {
                plain(out, record, view.show_keys)?;
            }
        }
        Format::Table { colour } => {
            let left_out = table(out, colour, view, columns, records)?;
            // Not among what was asked for.
            if records.is_empty() {
                tell(format_args!("no {}", if kind == "sas" { "SAs" } else { kind }));
            } else if left_out > 0 {
                out.flush()?;
                tell(format_args!("{left_out} columns more have no room here: --columns chooses"));
            }
        }
    }
    out.flush()
}

/// Records with these fields only, as they are named.
pub fn chosen(records: Vec<Record>, columns: &[&'static str]) -> Vec<Record> {
    let field = |record: &Record, name: &'static str| {
        let value = record.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        value.map(|value| (name, if let Value::Unsaid(value) = value { *value } else { value }))
    };
    records.into_iter().map(|record| columns.iter().filter_map(|name| field(&record, name)).collect()).collect()
}

/// One record as a line.
pub fn plain(out: &mut Out, record: &Record, show_keys: bool) -> io::Result<()> {
    let said = record.iter().filter(|(_, value)| !matches!(value, Value::Unsaid(_)));
    for (i, (name, value)) in said.enumerate() {
        let text = value.text(show_keys);
        let quote = if text.contains([' ', '"']) || text.is_empty() { "\"" } else { "" };
        write!(out, "{}{name}={quote}{}{quote}", if i == 0 { "" } else { " " }, printable(&text).as_str())?;
    }
    writeln!(out)
}

/// Without control characters, which a label that somebody else chose could use to repaint the terminal.
pub fn printable(text: &str) -> Zeroizing<String> {
    // Never moved, so that no copy of a key stays behind.
    let mut safe = Zeroizing::new(String::with_capacity(text.len()));
    safe.extend(text.chars().map(|c| if c.is_control() || c == '"' { '?' } else { c }));
    safe
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// The colour of a word that says how something is.
fn colour_of(text: &str) -> &'static str {
    match text {
        "mature" | "ok" | "ipsec" | "in use" => GREEN,
        "larval" | "dying" | "none" | "unused" => YELLOW,
        "dead" | "discard" | "missing" | "failed" => RED,
        "hidden" => DIM,
        _ => "",
    }
}

/// Shows as many columns as the terminal has room for, and says how many it has not.
fn table(out: &mut Out, colour: bool, view: View, columns: &[&'static str], records: &[Record]) -> io::Result<usize> {
    if records.is_empty() {
        return Ok(0);
    }
    let show_keys = view.show_keys;
    let rows: Vec<Vec<Zeroizing<String>>> = records
        .iter()
        .map(|record| {
            let cell = |column: &&str| {
                let value = record.iter().find(|(name, _)| name == column);
                value.map_or_else(Zeroizing::default, |(_, value)| printable(&value.text(show_keys)))
            };
            columns.iter().map(cell).collect()
        })
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(name.len())
        })
        .collect();
    // A column that nobody fills is left out.
    let filled: Vec<usize> = (0..columns.len())
        .filter(|&i| rows.iter().any(|row| row.get(i).is_some_and(|cell| !cell.is_empty())))
        .collect();
    // What matters most stands first, and stays.
    let mut end = 0;
    let fits = |i: &&usize| {
        end += widths[**i] + if end == 0 { 0 } else { 2 };
        view.width.is_none_or(|width| end <= width)
    };
    let room = filled.iter().take_while(fits).count().max(1).min(filled.len());
    let shown = filled.get(..room).unwrap_or(&filled);
    let mut line = |cells: &mut dyn Iterator<Item = (usize, &str, &str)>| -> io::Result<()> {
        let mut pad = 0;
        for (width, text, paint) in cells {
            let (on, off) = if colour && !paint.is_empty() { (paint, RESET) } else { ("", "") };
            write!(out, "{:pad$}{on}{text}{off}", "")?;
            pad = width - text.chars().count() + 2;
        }
        writeln!(out)
    };
    let headings: Vec<String> = columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
    line(&mut shown.iter().map(|&i| (widths[i], headings[i].as_str(), BOLD)))?;
    for row in &rows {
        line(&mut shown.iter().map(|&i| (widths[i], row[i].as_str(), colour_of(&row[i]))))?;
    }
    Ok(filled.len() - room)
}
