//! A text of setkey's language and where it is from: a file, standard input, or the words of a command line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::setkey::{Command, Complaint, Lines, Parsed, parse_files};

/// What stands for a file's name where there is none.
const WORDS: &str = "arguments";

/// A text and where it is from. Whoever wrote it put keys into it.
pub struct Source {
    name: String,
    text: Zeroizing<Vec<u8>>,
    /// The files that it is put together from: their names, and where each ends.
    files: Vec<(String, usize)>,
    /// It is a command line's.
    is_words: bool,
}

impl Source {
    /// A file, standard input for `-`, or of a directory the files `*.conf` in the order of their names.
    pub fn file(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed = |path: &Path, error| Failure::Usage(format!("{}: {error}", path.display()));
        if !path.is_dir() {
            let text = read(path).map_err(|error| failed(path, error))?;
            return Ok(Self { name, text, files: Vec::new(), is_words: false });
        }
        let mut texts = Vec::new();
        for path in files(path).map_err(|error| failed(path, error))? {
            texts.push((path.display().to_string(), read(&path).map_err(|error| failed(&path, error))?));
        }
        let len = texts.iter().map(|(_, text)| text.len() + 1).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(len));
        let mut files = Vec::new();
        for (name, one) in texts {
            text.extend_from_slice(&one);
            // A comment ends with its file.
            text.push(b'\n');
            files.push((name, text.len()));
        }
        Ok(Self { name, text, files, is_words: false })
    }

    /// The words of a command line, which are one command.
    pub fn words(command: &str, words: Vec<String>) -> Self {
        let words = Zeroizing::new(words);
        let len = 16 + words.iter().map(|word| word.len() + 1).sum::<usize>();
        let mut text = Zeroizing::new(Vec::with_capacity(len));
        text.extend_from_slice(command.as_bytes());
        for word in words.iter() {
            text.push(b' ');
            text.extend_from_slice(word.as_bytes());
        }
        text.push(b';');
        Self { name: WORDS.to_owned(), text, files: Vec::new(), is_words: true }
    }
}

/// The files of a directory, which nobody hid.
fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a whole file, and leaves no buffer behind.
pub fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(File::from(std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?))
    } else {
        Box::new(File::open(path)?)
    };
    let mut text = Zeroizing::new(vec![0; 64 * 1024]);
    let mut len = 0;
    loop {
        if len == text.len() {
            let mut larger = Zeroizing::new(vec![0; text.len() * 2]);
            if let Some(start) = larger.get_mut(..len) {
                start.copy_from_slice(&text);
            }
            text = larger;
        }
        match source.read(text.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(len);
    Ok(text)
}

/// The commands of a text that has no errors.
pub struct Script<'s> {
    source: &'s Source,
    lines: Lines<'s>,
    parsed: Parsed,
}

impl<'s> Script<'s> {
    /// Parses a text. With `kernel` inbound policies get no copies for forwarded packets.
    ///
    /// # Errors
    /// Every error in it, with its place.
    pub fn parse(source: &'s Source, kernel: bool) -> Result<Self, Failure> {
        let ends: Vec<usize> = match source.files.as_slice() {
            [] => vec![source.text.len()],
            files => files.iter().map(|(_, end)| *end).collect(),
        };
        let parsed = parse_files(&source.text, &ends, kernel);
        let script = Self { source, lines: Lines::new(&source.text), parsed };
        if script.parsed.errors.is_empty() {
            return Ok(script);
        }
        let all: Vec<_> = script.parsed.errors.iter().map(|error| script.complaint(error, "")).collect();
        Err(Failure::Usage(all.join("\n")))
    }

    /// What is worth a warning, each with its place.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.parsed.warnings.iter().map(|warning| self.complaint(warning, "warning: "))
    }

    fn complaint(&self, complaint: &Complaint, kind: &str) -> String {
        format!("{}: {kind}{}", self.place(complaint.at), complaint.text)
    }

    /// Where something stands, for a message.
    pub fn place(&self, at: usize) -> String {
        let files = &self.source.files;
        // The end of a file is its own place, not the next one's.
        let index = files.partition_point(|(_, end)| *end < at).min(files.len().saturating_sub(1));
        let start = index.checked_sub(1).and_then(|before| files.get(before)).map_or(0, |(_, end)| *end);
        let name = files.get(index).map_or(self.name(), |(name, _)| name);
        let (line, column) = self.lines.locate(at);
        let line = line - (self.lines.locate(start).0 - 1);
        format!("{name}:{line}:{column}")
    }

    /// The text's name.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// The commands, in order.
    pub fn commands(&self) -> &[Command] {
        &self.parsed.commands
    }

    /// Whether it is one command, whose user needs no place to know which.
    pub fn is_one_of_words(&self) -> bool {
        self.source.is_words && self.commands().len() == 1
    }
}
