//! Requests to the kernel, and which answer belongs to which request.
//!
//! The kernel answers while `send` runs, on a socket that joined no group. What waits there before a request is therefore
//! the answer to an older one, whose receive failed, and is thrown away. An acknowledgement names its request by the header
//! that it repeats. Any other answer names it by `nlmsg_seq`, which is unique where no notification has to carry
//! PF_KEY's.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use zerocopy::IntoBytes as _;
use zeroize::{Zeroize, Zeroizing};

use crate::attribute::{Acknowledgement, Name, Received, Writer, split};
use crate::layout::Header;
use crate::netlink::{Netlink, RECEIVE_BUFFER};
use pfkey_hub::Errno;

/// How often a receive that fails is tried. A socket reports an error once, and keeps what waits.
const TRIES: usize = 3;
/// Datagrams that are looked at for an answer: more than wait in a socket, unless somebody who holds it, too, adds to them.
const MOST_WAITING: usize = 1024;

/// The socket for requests.
pub struct Requests {
    pub(super) netlink: Netlink,
    buffer: Zeroizing<Box<[u8]>>,
    /// The bytes of the buffer that were received last.
    filled: usize,
    /// The answer to the last question.
    answer: Zeroizing<Vec<u8>>,
    /// The number of the last question.
    number: u32,
    /// An answer may still wait.
    unsettled: bool,
    /// What the kernel says of the last messages that it refused, by their places among those that were sent together.
    said: BTreeMap<usize, String>,
}

impl Requests {
    pub fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            buffer: Zeroizing::new(vec![0; RECEIVE_BUFFER].into()),
            filled: 0,
            answer: Zeroizing::default(),
            // Of a worker before this one answers may wait in a socket that it left, whose questions had other numbers.
            number: std::process::id().rotate_left(16),
            unsettled: true,
            said: BTreeMap::new(),
        }
    }

    /// What the kernel says of the messages that it refused, by their places among those that were sent together last.
    pub fn take_said(&mut self) -> BTreeMap<usize, String> {
        std::mem::take(&mut self.said)
    }

    /// Puts another socket in the place of this one, and returns that.
    pub const fn replace(&mut self, netlink: Netlink) -> Netlink {
        // Who else has it may have left something there.
        self.unsettled = true;
        std::mem::replace(&mut self.netlink, netlink)
    }

    /// A `nlmsg_seq` for a question, which causes no notification.
    pub const fn number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Asks a question without `NLM_F_ACK`: its answer is one message or an error. It has a [`Requests::number`].
    ///
    /// # Errors
    /// The kernel's; ENOBUFS or ENOMEM when the answer was lost.
    pub fn ask(&mut self, question: &mut Writer) -> Result<(), Errno> {
        let asked = self.ask_for(question);
        question.clear();
        asked
    }

    fn ask_for(&mut self, question: &Writer) -> Result<(), Errno> {
        let name = self.send(question.bytes())?;
        for _ in 0..MOST_WAITING {
            if !self.receive()? {
                break;
            }
            if let Some(outcome) = self.answered_as(name, question) {
                return outcome;
            }
        }
        Err(Errno::ENOBUFS)
    }

    /// The message that answered the last question.
    pub fn answer(&self) -> Option<Received<'_>> {
        split(&self.answer).map(|(received, _)| received)
    }

    /// Takes a message of a dump for the answer to the last question.
    pub fn take_answer(&mut self, received: &Received<'_>) {
        self.answer.zeroize();
        let Name { msg_type, seq, pid } = received.name();
        let len = (size_of::<Header>() + received.body.len()) as u32;
        let header =
            Header { len: len.into(), msg_type: msg_type.into(), flags: 0.into(), seq: seq.into(), pid: pid.into() };
        self.answer.extend_from_slice(header.as_bytes());
        self.answer.extend_from_slice(received.body);
    }

    /// Wipes the answer to the last question, which may hold keys.
    pub fn forget(&mut self) {
        if !self.answer.is_empty() {
            self.answer.zeroize();
        }
    }

    /// Sends a change without `NLM_F_ACK`: an error is the only answer.
    ///
    /// # Errors
    /// The kernel's; ENOBUFS or ENOMEM when it could not be received.
    pub fn change(&mut self, change: &mut Writer) -> Result<(), Errno> {
        let changed = self.change_one(change);
        change.clear();
        changed
    }

    fn change_one(&mut self, change: &Writer) -> Result<(), Errno> {
        let name = self.send(change.bytes())?;
        for _ in 0..MOST_WAITING {
            if !self.receive()? {
                break;
            }
            let received = self.buffer.get(..self.filled).unwrap_or_default();
            let error = Acknowledgement::read(received).filter(|a| a.of == name);
            self.wipe();
            if let Some(error) = error {
                self.note(0, &error, change.bytes());
                return error.outcome;
            }
        }
        Ok(())
    }

    /// Sends changes with `NLM_F_ACK`. Returns the outcome of each, in order. The outcomes of changes with equal names are
    /// known only if all of them were received.
    ///
    /// # Errors
    /// Those of `send`; none was carried out.
    pub fn change_all(&mut self, changes: &mut Writer) -> Result<Vec<Result<(), Errno>>, Errno> {
        let changed = self.change_each(changes.bytes());
        changes.clear();
        changed
    }

    fn change_each(&mut self, changes: &[u8]) -> Result<Vec<Result<(), Errno>>, Errno> {
        let mut rest = changes;
        let (mut names, mut messages) = (Vec::new(), Vec::new());
        while let Some((one, next)) = split(rest) {
            names.push(one.name());
            messages.push(rest.get(..rest.len() - next.len()).unwrap_or_default());
            rest = next;
        }
        match self.send(changes) {
            // More than the socket takes at once (SO_SNDBUF), and nothing of it was done.
            Err(Errno::EMSGSIZE) if names.len() > 1 => return Ok(self.change_singly(&messages)),
            sent => sent?,
        };
        let mut received: Vec<Acknowledgement> = Vec::with_capacity(names.len());
        let (mut tries, mut rounds) = (TRIES, MOST_WAITING);
        while received.len() < names.len() && tries > 0 && rounds > 0 {
            rounds -= 1;
            match self.netlink.acknowledgements(names.len() - received.len()) {
                Ok(waiting) if waiting.is_empty() => break,
                Ok(waiting) => received.extend(waiting.into_iter().flatten().filter(|a| names.contains(&a.of))),
                Err(_) => tries -= 1,
            }
        }
        self.unsettled |= tries == 0;
        if received.iter().map(|a| a.of).eq(names.iter().copied()) {
            for (n, (error, message)) in received.iter().zip(messages).enumerate() {
                self.note(n, error, message);
            }
            return Ok(received.into_iter().map(|a| a.outcome).collect());
        }
        let place = |n: usize| names.iter().take(n).filter(|other| **other == names[n]).count();
        Ok((0..names.len())
            .map(|n| {
                let mut same = received.iter().filter(|a| a.of == names[n]);
                let all = same.clone().count() == names.iter().filter(|other| **other == names[n]).count();
                same.nth(place(n)).filter(|_| all).map_or(Err(Errno::ENOBUFS), |a| a.outcome)
            })
            .collect())
    }

    fn change_singly(&mut self, changes: &[&[u8]]) -> Vec<Result<(), Errno>> {
        let mut said = BTreeMap::new();
        let outcomes = changes.iter().enumerate().map(|(place, change)| {
            let outcome = self.change_each(change);
            said.extend(self.said.remove(&0).map(|words| (place, words)));
            outcome?.pop().unwrap_or(Err(Errno::ENOBUFS))
        });
        let outcomes = outcomes.collect();
        self.said = said;
        outcomes
    }

    /// Sends one change with `NLM_F_ACK`.
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn order(&mut self, change: &mut Writer) -> Result<(), Errno> {
        self.change_all(change)?.into_iter().next().unwrap_or(Err(Errno::ENOBUFS))
    }

    /// Throws away what waits, sends, and returns the name of the first message. Who wrote the messages wipes them.
    fn send(&mut self, messages: &[u8]) -> Result<Name, Errno> {
        self.answer.zeroize();
        self.said.clear();
        let name = split(messages).map(|(one, _)| one.name()).unwrap_or_default();
        self.settle().and_then(|()| self.netlink.send(messages)).map(|()| name)
    }

    /// Keeps what the kernel says of an error.
    fn note(&mut self, place: usize, error: &Acknowledgement, message: &[u8]) {
        if let Some(said) = &error.said {
            self.said.insert(place, said.about(message));
        }
    }

    pub(super) fn settle(&mut self) -> Result<(), Errno> {
        for _ in 0..MOST_WAITING {
            if !self.unsettled {
                break;
            }
            self.unsettled = false;
            self.unsettled = self.receive()?;
            self.wipe();
        }
        Ok(())
    }

    /// Receives the next datagram; false = none waits.
    fn receive(&mut self) -> Result<bool, Errno> {
        let mut error = None;
        for _ in 0..TRIES {
            match self.netlink.receive(&mut self.buffer) {
                Ok(Some(received)) => {
                    self.filled = received.len();
                    return Ok(true);
                }
                Ok(None) => return error.map_or(Ok(false), Err),
                Err(errno) => error = Some(errno),
            }
        }
        self.unsettled = true;
        Err(error.unwrap_or(Errno::ENOBUFS))
    }

    /// The outcome of a question, if what was received answers it. A message is kept.
    fn answered_as(&mut self, name: Name, question: &Writer) -> Option<Result<(), Errno>> {
        let received = self.buffer.get(..self.filled).unwrap_or_default();
        let outcome = match Acknowledgement::read(received) {
            Some(acknowledgement) if acknowledgement.of == name => {
                let outcome = acknowledgement.outcome;
                self.note(0, &acknowledgement, question.bytes());
                Some(outcome)
            }
            Some(_) => None,
            None if split(received).is_some_and(|(one, _)| one.seq == name.seq) => {
                self.answer.extend_from_slice(received);
                Some(Ok(()))
            }
            None => None,
        };
        self.wipe();
        outcome
    }

    fn wipe(&mut self) {
        self.buffer.get_mut(..self.filled).unwrap_or_default().zeroize();
        self.filled = 0;
    }
}
