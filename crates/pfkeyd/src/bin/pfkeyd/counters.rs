//! What is counted for as long as state is taken over: by workers and guardians of one start, and by those of the next.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use pfkey_socket::report::Counted;

use super::memory::Memory;

/// Its name in systemd's store, with the version of what its words mean. One of another name is not looked at.
pub const NAME: &str = "counters-1";
/// Messages that a session lost, because its queue was full.
const DROPPED: usize = 0;
/// Workers that were replaced.
const WORKERS: usize = 1;
/// Starts that went on with what another pfkeyd left.
const RESTARTS: usize = 2;
/// Words: there may be more of them one day.
const WORDS: usize = 16;

/// Counters in shared memory. Each has one writer at a time.
#[derive(Clone)]
pub struct Counters(Rc<Memory>);

impl Counters {
    /// Counters that end with this process and its children.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Rc::new(Memory::new(WORDS, 0)?)))
    }

    /// Those of before, or new ones, and their file.
    pub fn take(file: Option<OwnedFd>) -> io::Result<(Self, OwnedFd)> {
        let kept = file.and_then(|file| Memory::of_file(WORDS, &file).ok().map(|memory| (memory, file)));
        let (memory, file) = kept.map_or_else(|| Memory::with_file(WORDS), Ok)?;
        Ok((Self(Rc::new(memory)), file))
    }

    fn count(&self, word: usize) {
        self.0.set_word(word, self.0.word(word).saturating_add(1));
    }

    /// A message is lost.
    pub fn dropped(&self) {
        self.count(DROPPED);
    }

    /// Another worker goes on.
    pub fn worker(&self) {
        self.count(WORKERS);
    }

    /// What another pfkeyd left is taken over.
    pub fn restart(&self) {
        self.count(RESTARTS);
    }

    /// All of them, with what is counted elsewhere.
    pub fn read(&self, refused: u64) -> Counted {
        Counted {
            dropped: self.0.word(DROPPED),
            refused,
            workers: self.0.word(WORKERS),
            restarts: self.0.word(RESTARTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_over() {
        let (counters, file) = Counters::take(None).unwrap();
        counters.dropped();
        counters.worker();
        let (again, _) = Counters::take(Some(file)).unwrap();
        again.restart();
        again.dropped();
        assert_eq!(again.read(3), Counted { dropped: 2, refused: 3, workers: 1, restarts: 1 });
        // What is none is not.
        let other = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
        assert_eq!(Counters::take(Some(other)).unwrap().0.read(0), Counted::default());
    }
}
