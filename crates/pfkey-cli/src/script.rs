//! A text of setkey's language and where it is from: a file, standard input, or the words of a command line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::setkey::{Command, Complaint, Lines, Parsed, parse};

/// What stands for a file's name where there is none.
const WORDS: &str = "arguments";

/// A text and where it is from. Whoever wrote it put keys into it.
pub struct Source {
    name: String,
    text: Zeroizing<Vec<u8>>,
    /// It is a command line's.
    is_words: bool,
}

impl Source {
    /// A file, or standard input for `-`.
    pub fn file(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => Ok(Self { name, text, is_words: false }),
            Err(error) => Err(Failure::Usage(format!("{name}: {error}"))),
        }
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
        Self { name: WORDS.to_owned(), text, is_words: true }
    }
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
        let script = Self { source, lines: Lines::new(&source.text), parsed: parse(&source.text, kernel) };
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
        let (line, column) = self.lines.locate(at);
        format!("{}:{line}:{column}", self.name())
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
