//! A server whose socket calls fail, and one that goes on after another.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, setsockopt, shutdown, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use zerocopy::IntoBytes as _;

use super::receive::consume;
use super::{ATTEMPTS, Server};
use crate::keeper::{Keeper, Slot, Unfinished, Word};
use crate::{Service, SessionId, SessionState, Sink, Sources, Time};
use pfkey_hub::SessionStatistics;
use pfkey_wire::{BATCH, HEADER_LEN, Header, MessageType, SaType, WireError};

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("two sockets")
}

/// Notes what it receives.
#[derive(Default)]
struct Notes {
    received: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Sources for Notes {}

impl Service for Notes {
    fn open(&mut self) -> SessionId {
        SessionId(0)
    }

    fn close(&mut self, _: SessionId, _: Time) {}

    fn receive(&mut self, _: SessionId, bytes: &[u8], _: Time, _: &mut impl Sink) -> Result<(), WireError> {
        self.received.borrow_mut().push(bytes.to_vec());
        Ok(())
    }

    fn statistics(&self, _: SessionId) -> Option<SessionStatistics> {
        None
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        Vec::new()
    }
}

thread_local! {
    /// Receives that will fail, and with what.
    static FAILURES: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
}

fn fails(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let (left, errno) = FAILURES.get();
    if left == 0 {
        return consume(fd);
    }
    FAILURES.set((left - 1, errno));
    Err(Errno::from_raw(errno))
}

/// Whether the receive that consumes fails at once, at every attempt of a turn, or still when it is tried again.
#[test]
fn a_request_that_cannot_be_consumed_is_done_once() {
    for errno in [libc::EINTR, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EIO] {
        for failures in [1, ATTEMPTS, 2 * ATTEMPTS + 1] {
            let (ours, theirs) = sockets();
            let notes = Notes::default();
            let received = notes.received.clone();
            let mut server = Server::new(notes).expect("a server");
            server.consume = fails;
            server.add(ours).expect("a session");
            FAILURES.set((failures, errno));
            let batch = [&BATCH[..], &[2, 3, 0, 3], &u16::to_ne_bytes(2), &[0, 0], &[3; 8]].concat();
            for message in [&b"first"[..], &batch, b"third"] {
                assert_eq!(send(theirs.as_raw_fd(), message, MsgFlags::empty()), Ok(message.len()));
            }
            shutdown(theirs.as_raw_fd(), Shutdown::Write).expect("an end");
            server.run().expect("it serves");
            assert_eq!(*received.borrow(), [&b"first"[..], &batch[16..], b"third"], "{errno} {failures} times");
            assert_eq!(FAILURES.get().0, 0);
        }
    }
}

/// What outlives a server: what was noted of its clients.
#[derive(Default)]
struct Kept {
    noted: HashMap<Slot, (SessionId, SessionState)>,
    unfinished: HashMap<Slot, Unfinished>,
    was_left: bool,
}

struct MockKeeper {
    kept: Rc<RefCell<Kept>>,
    words: VecDeque<Word>,
    /// Always readable.
    source: OwnedFd,
}

impl Keeper for MockKeeper {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.source.as_fd())
    }

    fn hear(&mut self) -> Word {
        self.words.pop_front().unwrap_or(Word::Ended)
    }

    fn noted(&self, slot: Slot) -> Option<(SessionId, SessionState)> {
        self.kept.borrow().noted.get(&slot).cloned()
    }

    fn note(&mut self, slot: Slot, id: SessionId, state: &SessionState) {
        self.kept.borrow_mut().noted.insert(slot, (id, state.clone()));
    }

    fn leave(&mut self) {
        self.kept.borrow_mut().was_left = true;
    }

    fn was_left(&self) -> bool {
        self.kept.borrow().was_left
    }

    fn go_on(&mut self) {
        self.kept.borrow_mut().was_left = false;
    }

    fn begin(&mut self, slot: Slot, sent: u64, done: usize) {
        self.kept.borrow_mut().unfinished.insert(slot, Unfinished { sent, done, answered: None });
    }

    fn done(&mut self, slot: Slot, bytes: usize) {
        self.kept.borrow_mut().unfinished.get_mut(&slot).expect("it has begun").done = bytes;
    }

    fn answered(&mut self, slot: Slot, errno: u8) {
        self.kept.borrow_mut().unfinished.get_mut(&slot).expect("it has begun").answered = Some(errno);
    }

    fn end(&mut self, slot: Slot) {
        self.kept.borrow_mut().unfinished.remove(&slot);
    }

    fn unfinished(&self, slot: Slot) -> Option<Unfinished> {
        self.kept.borrow().unfinished.get(&slot).copied()
    }
}

/// What a server does before it ends.
enum Deed {
    Nothing,
    /// Sends the requester a promiscuous session's copy of its request.
    Copy,
    /// Sends it something else.
    News,
    /// Sends the other client what would be the answer.
    TellOther,
    Answer(u8),
}

/// The sequence number of the request at which a server ends.
const POISON: u32 = 666;

fn header(msg_type: MessageType, seq: u32) -> Header {
    Header::new(msg_type, SaType::ESP, seq, 1)
}

/// Answers a request with the request.
struct Mock {
    received: Rc<RefCell<Vec<u32>>>,
    resumed: Rc<RefCell<Vec<SessionState>>>,
    opened: u32,
    state: HashMap<SessionId, SessionState>,
    /// Sends the poison when a dump that ends is over, or else in the first turn of what was asked.
    poisoner: Option<OwnedFd>,
    deed: Deed,
    /// A dump ends when its client's queue is full; otherwise it never does.
    dump_ends: bool,
    /// Learns that a client's state was noted.
    noted: Option<Sender<()>>,
}

impl Mock {
    fn poison(&mut self) {
        if let Some(poisoner) = self.poisoner.take() {
            let poison = header(MessageType::GET, POISON).to_layout();
            assert_eq!(send(poisoner.as_raw_fd(), poison.as_bytes(), MsgFlags::empty()), Ok(HEADER_LEN));
        }
    }

    fn pump(&mut self, id: SessionId, sink: &mut impl Sink) {
        let entry = header(MessageType::DUMP, 1).to_layout();
        if self.dump_ends {
            // Others' news, which ask for no leave, may fill it, too.
            while sink.deliver_dumped(id, entry.as_bytes()) {}
            self.state.entry(id).or_default().dump = None;
        }
        while !self.dump_ends && sink.may_dump(id) {
            assert!(sink.deliver_dumped(id, entry.as_bytes()));
        }
        self.poison();
    }
}

impl Sources for Mock {}

impl Service for Mock {
    fn open(&mut self) -> SessionId {
        self.opened += 1;
        SessionId(self.opened)
    }

    fn resume(&mut self, id: SessionId, state: &SessionState, _: Time) -> SessionId {
        self.resumed.borrow_mut().push(state.clone());
        id
    }

    fn state(&self, id: SessionId) -> SessionState {
        // The reader may have gone.
        let _ = self.noted.as_ref().map(|noted| noted.send(()));
        self.state.get(&id).cloned().unwrap_or_default()
    }

    fn close(&mut self, _: SessionId, _: Time) {}

    fn receive(&mut self, id: SessionId, bytes: &[u8], _: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        let request = Header::read(bytes).expect("a header");
        self.received.borrow_mut().push(request.seq);
        if request.seq == POISON {
            let _ = match self.deed {
                Deed::Nothing => true,
                Deed::Copy => sink.deliver_copy(id, bytes),
                Deed::News => sink.deliver(id, header(MessageType::GET, POISON + 1).to_layout().as_bytes()),
                Deed::TellOther => sink.deliver(SessionId(3 - id.0), bytes),
                Deed::Answer(errno) => sink.deliver(id, Header { errno, ..request }.to_layout().as_bytes()),
            };
            resume_unwind(Box::new(()));
        }
        if request.msg_type == MessageType::DUMP {
            self.state.entry(id).or_default().dump = Some(request);
            self.pump(id, sink);
        } else {
            sink.deliver(id, bytes);
            self.poison();
        }
        Ok(())
    }

    fn is_dumping(&self, id: SessionId) -> bool {
        self.state(id).dump.is_some()
    }

    fn writable(&mut self, id: SessionId, _: Time, sink: &mut impl Sink) {
        if self.is_dumping(id) {
            self.pump(id, sink);
        }
    }

    fn statistics(&self, _: SessionId) -> Option<SessionStatistics> {
        None
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        Vec::new()
    }
}

/// Clients whose servers end.
struct Clients {
    kept: Rc<RefCell<Kept>>,
    ours: Vec<OwnedFd>,
    theirs: Vec<OwnedFd>,
    /// Sequence numbers of what was received.
    received: Rc<RefCell<Vec<u32>>>,
    resumed: Rc<RefCell<Vec<SessionState>>>,
}

impl Clients {
    fn new(number: usize) -> Self {
        let (ours, theirs) = (0..number).map(|_| sockets()).unzip();
        Self { kept: Rc::default(), ours, theirs, received: Rc::default(), resumed: Rc::default() }
    }

    fn send(&self, client: usize, message: &[u8]) {
        assert_eq!(send(self.theirs[client].as_raw_fd(), message, MsgFlags::empty()), Ok(message.len()));
    }

    fn copy(&self, client: usize) -> OwnedFd {
        self.theirs[client].try_clone().expect("a copy")
    }

    fn mock(&self, poisoner: Option<usize>, deed: Deed, dump_ends: bool) -> Mock {
        Mock {
            received: Rc::clone(&self.received),
            resumed: Rc::clone(&self.resumed),
            opened: 0,
            state: HashMap::new(),
            poisoner: poisoner.map(|client| self.copy(client)),
            deed,
            dump_ends,
            noted: None,
        }
    }

    /// Serves them with a new server until it ends.
    fn serve(&self, mock: Mock) -> std::thread::Result<()> {
        self.serve_until(mock, &mut VecDeque::new())
    }

    /// The same with a keeper that says more after the clients.
    fn serve_until(&self, mock: Mock, more: &mut VecDeque<Word>) -> std::thread::Result<()> {
        let copies = self.ours.iter().map(|fd| fd.try_clone().expect("a copy")).enumerate();
        let mut words: VecDeque<Word> = copies.map(|(slot, fd)| Word::Client(slot as Slot, fd, Vec::new())).collect();
        words.push_back(Word::All);
        words.append(more);
        let (source, _) = sockets();
        let keeper = MockKeeper { kept: Rc::clone(&self.kept), words, source };
        let mut server = Server::with_keeper(mock, keeper).expect("a server");
        catch_unwind(AssertUnwindSafe(|| server.run().expect("it serves")))
    }

    /// A server ends at the poison, and another goes on until the clients have gone. Gives what each client received:
    /// sequence numbers and errnos.
    fn serve_twice(&self, mock: Mock) -> Vec<Vec<(u32, u8)>> {
        assert!(self.serve(mock).is_err());
        // The next is done when nothing more waits for room.
        for theirs in &self.theirs {
            shutdown(theirs.as_raw_fd(), Shutdown::Write).expect("an end");
        }
        let theirs: Vec<OwnedFd> = self.theirs.iter().map(|fd| fd.try_clone().expect("a copy")).collect();
        let reader = std::thread::spawn(move || theirs.iter().map(read_all).collect());
        assert!(self.serve(self.mock(None, Deed::Nothing, false)).is_ok());
        for ours in &self.ours {
            shutdown(ours.as_raw_fd(), Shutdown::Write).expect("an end");
        }
        reader.join().expect("it reads")
    }
}

impl Clients {
    /// The first so many errors that the first client receives of the next server, to which its queue is full at first.
    fn errors_of_first(&self, count: usize) -> Vec<(u32, u8)> {
        let (noted, is_noted) = channel();
        let theirs: Vec<OwnedFd> = (0..self.theirs.len()).map(|client| self.copy(client)).collect();
        let reader = std::thread::spawn(move || {
            // The errors wait for room.
            is_noted.recv().expect("it is noted");
            setsockopt(&theirs[0], sockopt::ReceiveTimeout, &TimeVal::seconds(30)).expect("a limit");
            let mut buffer = [0; 64];
            let next = || {
                let len = recv(theirs[0].as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
                Header::read(&buffer[..len]).map(|message| (message.seq, message.errno))
            };
            let errors = std::iter::from_fn(next).filter(|(_, errno)| *errno != 0).take(count).collect();
            for theirs in &theirs {
                shutdown(theirs.as_raw_fd(), Shutdown::Write).expect("an end");
            }
            errors
        });
        let next = Mock { noted: Some(noted), ..self.mock(None, Deed::Nothing, false) };
        assert!(self.serve(next).is_ok());
        reader.join().expect("it reads")
    }
}

/// What a client receives until there is no more: sequence number and errno of each message.
fn read_all(fd: &OwnedFd) -> Vec<(u32, u8)> {
    let mut buffer = [0; 64];
    let next = || match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("it can be read") {
        0 => None,
        len => Header::read(&buffer[..len]).map(|message| (message.seq, message.errno)),
    };
    std::iter::from_fn(next).collect()
}

const EIO: u8 = libc::EIO as u8;

#[test]
fn a_dump_in_hand_ends_in_an_error_though_another_clients_request_ended_the_server() {
    let clients = Clients::new(2);
    clients.send(0, header(MessageType::DUMP, 1).to_layout().as_bytes());
    let told = clients.serve_twice(clients.mock(Some(1), Deed::Nothing, false));
    assert_eq!(*clients.received.borrow(), [1, POISON]);
    let (end, entries) = told[0].split_last().expect("messages");
    assert_eq!(*end, (1, EIO));
    assert!(!entries.is_empty() && entries.iter().all(|(_, errno)| *errno == 0));
    assert_eq!(told[1], [(POISON, EIO)]);
}

#[test]
fn a_dump_whose_last_messages_were_not_sent_ends_in_an_error() {
    let clients = Clients::new(2);
    clients.send(0, header(MessageType::DUMP, 1).to_layout().as_bytes());
    assert!(clients.serve(clients.mock(Some(1), Deed::Nothing, true)).is_err());
    assert_eq!(clients.errors_of_first(1), [(1, EIO)]);
}

#[test]
fn of_a_batch_that_another_clients_request_ended_each_message_is_answered_once() {
    let clients = Clients::new(2);
    let numbers: Vec<u32> = (1000..2000).collect();
    let mut batch = BATCH.to_vec();
    for seq in &numbers {
        batch.extend_from_slice(header(MessageType::ADD, *seq).to_layout().as_bytes());
    }
    clients.send(0, &batch);
    let told = clients.serve_twice(clients.mock(Some(1), Deed::Nothing, false));
    assert_eq!(told[0].iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), numbers);
    let done = told[0].iter().filter(|(_, errno)| *errno == 0).count();
    assert!(done > 0 && done < numbers.len(), "{done} were done");
    assert_eq!(clients.received.borrow().len(), done + 1);
}

/// A server that is asked to end does so between two turns, and the next one goes on.
#[test]
fn a_batch_goes_on_after_a_server_that_left() {
    let clients = Clients::new(1);
    let numbers: Vec<u32> = (1000..2000).collect();
    let messages = numbers.iter().flat_map(|seq| header(MessageType::ADD, *seq).to_layout().as_bytes().to_vec());
    clients.send(0, &BATCH.into_iter().chain(messages).collect::<Vec<_>>());
    let mut ends = 0;
    while clients.received.borrow().len() < 500 {
        let mut words = VecDeque::from([Word::Leave]);
        assert!(clients.serve_until(clients.mock(None, Deed::Nothing, false), &mut words).is_ok());
        ends += 1;
    }
    assert!(ends > 1);
    shutdown(clients.theirs[0].as_raw_fd(), Shutdown::Write).expect("an end");
    assert!(clients.serve(clients.mock(None, Deed::Nothing, false)).is_ok());
    shutdown(clients.ours[0].as_raw_fd(), Shutdown::Write).expect("an end");
    assert_eq!(*clients.received.borrow(), numbers);
    assert_eq!(read_all(&clients.theirs[0]), numbers.iter().map(|seq| (*seq, 0)).collect::<Vec<_>>());
}

/// A dump that waits for room, and a request of the same client in hand.
#[test]
fn a_dump_ends_in_an_error_though_its_clients_next_request_ended_the_server() {
    let clients = Clients::new(1);
    clients.send(0, header(MessageType::DUMP, 1).to_layout().as_bytes());
    assert!(clients.serve(clients.mock(Some(0), Deed::Nothing, false)).is_err());
    assert_eq!(clients.errors_of_first(2), [(1, EIO), (POISON, EIO)]);
    assert_eq!(*clients.received.borrow(), [1, POISON]);
}

#[test]
fn only_its_answer_counts_as_the_answer_to_a_request() {
    for (deed, errnos) in [
        (Deed::Nothing, vec![EIO]),
        (Deed::Copy, vec![0, EIO]),
        (Deed::News, vec![0, EIO]),
        (Deed::TellOther, vec![EIO]),
        (Deed::Answer(0), vec![0]),
        (Deed::Answer(2), vec![2]),
    ] {
        let clients = Clients::new(2);
        clients.send(0, header(MessageType::GET, POISON).to_layout().as_bytes());
        let told = clients.serve_twice(clients.mock(None, deed, false));
        assert_eq!(told[0].iter().map(|(_, errno)| *errno).collect::<Vec<_>>(), errnos);
        assert_eq!(*clients.received.borrow(), [POISON]);
    }
}

#[test]
fn the_next_server_knows_what_was_answered_and_not_noted() {
    let promisc = Header { satype: SaType(1), ..header(MessageType::X_PROMISC, POISON) };
    let register = header(MessageType::REGISTER, POISON);
    for (request, errno, expected) in [
        (register, 0, (1 << SaType::ESP.0, false)),
        (register, libc::EINVAL as u8, (0, false)),
        (promisc, 0, (0, true)),
        (promisc, libc::EINVAL as u8, (0, false)),
    ] {
        let clients = Clients::new(1);
        clients.send(0, request.to_layout().as_bytes());
        clients.serve_twice(clients.mock(None, Deed::Answer(errno), false));
        let state = clients.resumed.borrow().last().map(|state| (state.registered, state.promiscuous));
        assert_eq!(state, Some(expected));
    }
}

#[test]
fn no_client_is_served_before_all_were_taken_over() {
    let clients = Clients::new(2);
    clients.send(0, header(MessageType::GET, POISON).to_layout().as_bytes());
    let told = clients.serve_twice(clients.mock(None, Deed::TellOther, false));
    assert_eq!(told[1], [(POISON, 0)]);
}
