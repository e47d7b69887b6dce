//! The command line of ipsec-tools 0.9.1's setkey, read as its `getopt` reads it: letters may stand together, an option's value
//! behind it or in the next word, and words that are no options anywhere.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Letters that are options; `d` and `?` are known and lead to the usage. `g` and `t` are FreeBSD's.
const LETTERS: &[u8] = b"acdgHlnvxDFPphtVrkN?";
/// Letters that take a value.
const WITH_VALUE: &[u8] = b"f";

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing was said.
    #[default]
    None,
    /// `-c`
    Stdin,
    /// `-f FILE`
    File(OsString),
    /// `-D`
    Dump,
    /// `-F`
    Flush,
    /// `-x`
    Promiscuous,
}

/// Which policies of the SPD are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    #[default]
    Any,
    /// `-g`: those of no interface.
    Global,
    /// `-t`: those of an interface.
    Interface,
}

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is to be done; the last one that was said.
    pub mode: Mode,
    /// `-a`: dead SAs too.
    pub all: bool,
    /// `-l`: again every second, a line an SA.
    pub forever: bool,
    /// `-n`: nothing is sent.
    pub not_really: bool,
    /// `-v`
    pub verbose: bool,
    /// `-H`
    pub hexadecimal: bool,
    /// `-P`: the SPD, not the SAD.
    pub policy: bool,
    /// `-p`
    pub ports: bool,
    /// `-N`: policies of sockets are left out.
    pub no_sockets: bool,
    /// `-k`: an inbound policy is not copied for forwarded packets. `-r` says the opposite.
    pub kernel: bool,
    /// How often `-x` was said.
    pub times: u32,
    /// `-g`, `-t`
    pub scope: Scope,
    /// Files of messages.
    pub files: Vec<OsString>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The usage is to be shown, after this was told.
    Usage(Option<String>),
    /// The version is to be shown (`-V`).
    Version,
}

/// Reads the words behind the command's name.
pub fn parse(words: &[OsString]) -> Result<Options, Refusal> {
    if words.is_empty() {
        return Err(Refusal::Usage(None));
    }
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let letters = match word.as_bytes() {
            b"--" => {
                options.files.extend(words.by_ref().cloned());
                break;
            }
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => {
                options.files.push(word.clone());
                continue;
            }
        };
        let mut rest = letters;
        while let [letter, behind @ ..] = rest {
            rest = behind;
            if WITH_VALUE.contains(letter) {
                let value = if behind.is_empty() { words.next().map(OsString::as_os_str) } else { Some(os(behind)) };
                let Some(value) = value else {
                    let letter = char::from(*letter);
                    return Err(Refusal::Usage(Some(format!("option requires an argument -- '{letter}'"))));
                };
                options.mode = Mode::File(value.to_owned());
                break;
            }
            if !LETTERS.contains(letter) {
                let shown = OsString::from_vec(vec![*letter]);
                return Err(Refusal::Usage(Some(format!("invalid option -- '{}'", shown.to_string_lossy()))));
            }
            options.set(*letter)?;
        }
    }
    Ok(options)
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

impl Options {
    fn set(&mut self, letter: u8) -> Result<(), Refusal> {
        match letter {
            b'c' => self.mode = Mode::Stdin,
            b'D' => self.mode = Mode::Dump,
            b'F' => self.mode = Mode::Flush,
            b'x' => {
                self.mode = Mode::Promiscuous;
                self.times += 1;
            }
            b'a' => self.all = true,
            b'l' => self.forever = true,
            b'n' => self.not_really = true,
            b'v' => self.verbose = true,
            b'H' => self.hexadecimal = true,
            b'P' => self.policy = true,
            b'p' => self.ports = true,
            b'N' => self.no_sockets = true,
            b'k' => self.kernel = true,
            b'r' => self.kernel = false,
            b'g' => self.scope = Scope::Global,
            b't' => self.scope = Scope::Interface,
            b'V' => return Err(Refusal::Version),
            _ => return Err(Refusal::Usage(None)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, Refusal> {
        let words: Vec<OsString> = line.split_ascii_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn letters_stand_together_and_values_behind_them() {
        let glued = read("-kvfx.conf").unwrap();
        assert_eq!((glued.mode, glued.kernel, glued.verbose), (Mode::File("x.conf".into()), true, true));
        assert_eq!(read("-f -").unwrap().mode, Mode::File("-".into()));
        assert_eq!(read("-x -x -D").map(|o| (o.mode, o.times)), Ok((Mode::Dump, 2)));
        let files = read("a -v b -- -c").unwrap();
        assert_eq!((files.files, files.verbose), (vec!["a".into(), "b".into(), "-c".into()], true));
    }

    #[test]
    fn what_is_no_option() {
        assert_eq!(read(""), Err(Refusal::Usage(None)));
        assert_eq!(read("-D -V -Q"), Err(Refusal::Version));
        assert_eq!(read("-d"), Err(Refusal::Usage(None)));
        assert_eq!(read("-DQ"), Err(Refusal::Usage(Some("invalid option -- 'Q'".to_owned()))));
        assert_eq!(read("-cf"), Err(Refusal::Usage(Some("option requires an argument -- 'f'".to_owned()))));
    }
}
