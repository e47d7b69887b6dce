//! Who receives what: the PF_KEY sockets of a hub, with what they registered for (af_key's `pfkey_broadcast`).

use std::sync::Arc;

use zerocopy::{FromBytes as _, IntoBytes as _};
use zeroize::Zeroizing;

use super::dump::DumpRun;
use super::sessions::Sessions;
use super::{Audience, Dialect, Outbox, PromiscuousCopy, SessionId, Sink};
use pfkey_model::settings::{Settings, is_sub_policy, scope};
use pfkey_wire::layout::SadbExt;
use pfkey_wire::xfrm::Mark;
use pfkey_wire::xfrm::settings::World;
use pfkey_wire::{ExtensionType, HEADER_LEN, Header, MessageType, SaType};

/// An open PF_KEY socket.
pub(super) struct Socket<D> {
    /// Bit n: registered for SA type n.
    pub registered: u16,
    pub promiscuous: bool,
    /// It is shown X_XFRM extensions.
    pub xfrm: bool,
    /// What its SAs and policies have beyond what it says of them.
    pub settings: Option<Arc<Settings>>,
    /// `sadb_msg_pid` of what it sent last.
    pub pid: u32,
    pub dump: Option<Box<DumpRun<D>>>,
}

impl<D> Default for Socket<D> {
    fn default() -> Self {
        Self { registered: 0, promiscuous: false, xfrm: false, settings: None, pid: 0, dump: None }
    }
}

impl<D> Socket<D> {
    /// By what it is apart from others.
    pub fn world(&self) -> World {
        self.settings.as_ref().map_or_else(World::default, |settings| *settings.world())
    }
}

/// The open PF_KEY sockets.
pub(super) struct Sockets<D> {
    pub sessions: Sessions<Socket<D>>,
    pub dialect: &'static Dialect,
    /// How many are registered.
    registered: usize,
    /// How many are promiscuous; if none is, an answer to one concerns no other.
    promiscuous: usize,
    /// How many are shown X_XFRM extensions; if none is, no message is written with one.
    xfrm: usize,
    /// How many are in a world of their own, for which messages are looked at.
    worlds: usize,
    /// Messages were once written with them, and what a dump holds back may have one.
    was_shown_xfrm: bool,
    /// Those of new sockets.
    pub settings: Option<Arc<Settings>>,
}

/// The bit of a registration.
pub(super) fn registration(satype: SaType) -> u16 {
    if satype == SaType::UNSPEC { 0 } else { 1_u16.checked_shl(satype.0.into()).unwrap_or(0) }
}

impl<D> Sockets<D> {
    pub(super) fn new(dialect: &'static Dialect) -> Self {
        Self {
            sessions: Sessions::default(),
            dialect,
            registered: 0,
            promiscuous: 0,
            xfrm: 0,
            worlds: 0,
            was_shown_xfrm: false,
            settings: None,
        }
    }

    pub(super) fn open(&mut self) -> SessionId {
        let id = self.sessions.open(Socket::default());
        self.set_settings(id, self.settings.clone());
        id
    }

    pub(super) fn close(&mut self, id: SessionId) -> Option<Socket<D>> {
        let socket = self.sessions.close(id)?;
        self.registered -= usize::from(socket.registered != 0);
        self.promiscuous -= usize::from(socket.promiscuous);
        self.xfrm -= usize::from(socket.xfrm);
        self.worlds -= usize::from(!socket.world().is_all());
        Some(socket)
    }

    /// Whether any is registered.
    pub(super) const fn is_registered(&self) -> bool {
        self.registered != 0
    }

    /// Adds to what a socket is registered for.
    pub(super) fn register(&mut self, id: SessionId, bits: u16) {
        let Some(socket) = self.sessions.get_mut(id) else { return };
        self.registered += usize::from(socket.registered == 0 && bits != 0);
        socket.registered |= bits;
    }

    pub(super) fn set_promiscuous(&mut self, id: SessionId, promiscuous: bool) {
        let Some(socket) = self.sessions.get_mut(id) else { return };
        self.promiscuous -= usize::from(socket.promiscuous);
        self.promiscuous += usize::from(promiscuous);
        socket.promiscuous = promiscuous;
    }

    /// Whether any is shown X_XFRM extensions, or receives messages by them.
    pub(super) const fn shows_xfrm(&self) -> bool {
        self.xfrm != 0 || self.worlds != 0
    }

    /// Sets what a socket's SAs and policies have.
    pub(super) fn set_settings(&mut self, id: SessionId, settings: Option<Arc<Settings>>) {
        let Some(socket) = self.sessions.get_mut(id) else { return };
        self.worlds -= usize::from(!socket.world().is_all());
        socket.settings = settings;
        self.worlds += usize::from(!socket.world().is_all());
        self.was_shown_xfrm |= self.worlds != 0;
    }

    /// The world of a socket.
    pub(super) fn world(&self, id: SessionId) -> World {
        self.sessions.get(id).map_or_else(World::default, Socket::world)
    }

    /// A dumped message as a socket is shown it: `None`, as it is.
    pub(super) fn plain(&self, id: SessionId, message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let shown = !self.was_shown_xfrm || self.sessions.get(id).is_none_or(|socket| socket.xfrm);
        if shown { None } else { without_xfrm(message) }
    }

    /// Shows a socket X_XFRM extensions, or none.
    pub(super) fn show_xfrm(&mut self, id: SessionId, shown: bool) {
        let Some(socket) = self.sessions.get_mut(id) else { return };
        self.xfrm -= usize::from(socket.xfrm);
        self.xfrm += usize::from(shown);
        self.was_shown_xfrm |= shown;
        socket.xfrm = shown;
    }

    /// Hands messages to the sockets, on behalf of one of them or of nobody.
    pub(super) const fn delivery<'a, S>(
        &'a mut self,
        requester: Option<SessionId>,
        sink: &'a mut S,
    ) -> Delivery<'a, D, S> {
        Delivery { sockets: self, requester, sink }
    }
}

/// Hands messages to their audience.
pub(super) struct Delivery<'a, D, S> {
    pub sockets: &'a mut Sockets<D>,
    requester: Option<SessionId>,
    pub sink: &'a mut S,
}

impl<D, S: Sink> Delivery<'_, D, S> {
    /// `pfkey_broadcast`: promiscuous copies and everyone in the audience but `one`, newest session first; `one`
    /// last. Returns the number of sessions that took the message.
    pub(super) fn broadcast(&mut self, audience: Audience, one: Option<SessionId>, message: &[u8]) -> usize {
        let Sockets { sessions, dialect, promiscuous, xfrm, worlds, .. } = &mut *self.sockets;
        let anybody = *promiscuous != 0;
        let nobody_else = matches!(audience, Audience::One | Audience::Promiscuous) && !anybody;
        if nobody_else && one.is_none() {
            return 0;
        }
        let origin = if *worlds == 0 {
            Origin::Anywhere
        } else if audience == Audience::Promiscuous {
            Origin::Session(self.requester.and_then(|id| sessions.get(id)).map_or_else(World::default, Socket::world))
        } else {
            scope(message).map_or(Origin::Anywhere, |(mark, if_id)| Origin::Scope(mark, if_id))
        };
        let wraps = anybody && dialect.promiscuous_copy == PromiscuousCopy::Wrapped;
        // Most of the time everybody receives the message as it is.
        let forms = (*xfrm != 0 || *worlds != 0 || anybody).then(|| Box::new(Forms::of(message, wraps)));
        let forms = forms.as_deref();
        let is_sub = forms.is_some() && is_sub_policy(message);
        let whole = |xfrm| forms.map_or(message, |forms| forms.whole(xfrm, message));
        let mut takers = 0;
        if !nobody_else {
            for (id, session) in sessions.iter_mut().rev() {
                if !origin.concerns(&session.state) || is_sub && !session.state.xfrm {
                    continue;
                }
                if session.state.promiscuous {
                    session.deliver_copy(
                        id,
                        forms.map_or(message, |forms| forms.copy(session.state.xfrm, message)),
                        self.sink,
                    );
                }
                let registered = session.state.registered;
                let hears = match audience {
                    Audience::All => true,
                    Audience::Registered => registered != 0,
                    Audience::RegisteredFor(satype) => registered & registration(satype) != 0,
                    Audience::One | Audience::Promiscuous => false,
                };
                if hears && one != Some(id) {
                    takers += usize::from(session.deliver(id, whole(session.state.xfrm), self.sink));
                }
            }
        }
        if let Some(id) = one {
            let shown = *xfrm != 0 && sessions.get(id).is_some_and(|socket| socket.xfrm);
            takers += usize::from(sessions.deliver(id, whole(shown), self.sink));
        }
        takers
    }
}

/// Where a message comes from, which decides whom in a world of their own it concerns.
enum Origin {
    /// Nobody is in one, or it is about no SA and no policy.
    Anywhere,
    /// An SA or a policy with this mark and this XFRM interface.
    Scope(Mark, u32),
    /// A session of this world sent it.
    Session(World),
}

impl Origin {
    fn concerns<D>(&self, socket: &Socket<D>) -> bool {
        let world = socket.world();
        world.is_all()
            || match self {
                Self::Anywhere => true,
                Self::Scope(mark, if_id) => world.has(*mark, *if_id),
                Self::Session(sender) => *sender == world,
            }
    }
}

/// What sessions receive of a message, where that is not the message itself.
struct Forms {
    /// Without X_XFRM: what a client sent may have an extension that nobody asked for.
    plain: Option<Zeroizing<Vec<u8>>>,
    /// The plain one behind a PROMISC header.
    wrapped_plain: Option<Zeroizing<Vec<u8>>>,
    /// The message behind one.
    wrapped: Option<Zeroizing<Vec<u8>>>,
}

impl Forms {
    fn of(message: &[u8], wraps: bool) -> Self {
        let plain = without_xfrm(message);
        let wrapped_plain = plain.as_ref().filter(|_| wraps).and_then(|plain| wrap(plain));
        Self { plain, wrapped_plain, wrapped: if wraps { wrap(message) } else { None } }
    }

    /// The message itself.
    fn whole<'a>(&'a self, xfrm: bool, message: &'a [u8]) -> &'a [u8] {
        self.plain.as_ref().filter(|_| !xfrm).map_or(message, |plain| plain.as_slice())
    }

    /// The copy of a promiscuous session.
    fn copy<'a>(&'a self, xfrm: bool, message: &'a [u8]) -> &'a [u8] {
        let wrapped = if xfrm || self.plain.is_none() { &self.wrapped } else { &self.wrapped_plain };
        wrapped.as_ref().map_or_else(|| self.whole(xfrm, message), |wrapped| wrapped.as_slice())
    }
}

impl<D, S: Sink> Outbox for Delivery<'_, D, S> {
    fn deliver(&mut self, audience: Audience, message: &[u8]) -> usize {
        let one = if audience == Audience::One { self.requester } else { None };
        self.broadcast(audience, one, message)
    }
}

/// A message without its X_XFRM extension; `None` if it has none.
fn without_xfrm(message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (mut before, mut rest) = (HEADER_LEN, message.get(HEADER_LEN..)?);
    loop {
        let (head, _) = SadbExt::read_from_prefix(rest).ok()?;
        let len = usize::from(head.len.get()) * 8;
        let after = rest.get(len..).filter(|_| len != 0)?;
        if head.ext_type.get() == ExtensionType::X_XFRM.0 {
            let (extensions, header) = (message.get(HEADER_LEN..before)?, Header::read(message)?);
            let len = u16::try_from((before + after.len()) / 8).ok()?;
            return Some(Zeroizing::new([Header { len, ..header }.to_layout().as_bytes(), extensions, after].concat()));
        }
        (before, rest) = (before + len, after);
    }
}

/// A message behind a PROMISC header.
fn wrap(message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let inner = Header::read(message)?;
    let len = u16::try_from(2 + message.len() / 8).ok()?;
    let header = Header { len, ..Header::new(MessageType::X_PROMISC, inner.satype, 0, inner.pid) };
    Some(Zeroizing::new([header.to_layout().as_bytes(), message].concat()))
}
