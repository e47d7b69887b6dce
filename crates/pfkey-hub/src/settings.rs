//! Requests of sessions whose SAs and policies have more than their programs say, and that are perhaps in a world of their own.
//! Engines receive whole requests: they know nothing of it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::service::settings_of;
use super::{
    Audience, Context, DumpMessage, DumpStep, Errno, Hub, KeyEngine, MessageBuffer, Outbox, Service as _, SessionId,
    Sink, Time,
};
use pfkey_model::request::refuse_xfrm;
use pfkey_model::settings::{Settings, deletion, is_sub_policy, scope};
use pfkey_wire::xfrm::settings::World;
use pfkey_wire::xfrm::{Mark, attribute, push};
use pfkey_wire::{ExtensionType as Ext, HEADER_LEN, Header, Message, MessageType, Profile, Writer};

/// Keeps the answer to one; everything else goes its way.
struct Asking<'a> {
    out: &'a mut dyn Outbox,
    answer: Zeroizing<Vec<u8>>,
}

impl Outbox for Asking<'_> {
    fn deliver(&mut self, audience: Audience, message: &[u8]) -> usize {
        if audience != Audience::One {
            return self.out.deliver(audience, message);
        }
        self.answer = Zeroizing::new(message.to_vec());
        1
    }
}

impl<E: KeyEngine> Hub<E> {
    /// Sets what the SAs and policies of sessions have that are opened from now on and do not say it themselves.
    ///
    /// # Errors
    /// The first attribute that the engine does not have.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), u16> {
        if let Some(number) = settings.attributes().find(|number| self.engine.attribute(*number).is_err()) {
            return Err(number);
        }
        self.sockets.settings = Some(Arc::new(settings)).filter(|settings| !settings.is_empty());
        Ok(())
    }

    /// X_XFRM with a text. An attribute that the engine does not have is named in the answer's `sadb_msg_reserved`.
    pub(super) fn take_settings(
        &mut self,
        id: SessionId,
        message: &Message<'_>,
        now: Time,
        sink: &mut impl Sink,
    ) -> Result<(), Errno> {
        self.event(now, sink);
        let settings = settings_of(message)?;
        let header = message.header();
        let mut answer = Header { errno: 0, len: 2, reserved: 0, ..header };
        for number in settings.attributes() {
            if let Err(errno) = self.engine.attribute(number) {
                (answer.errno, answer.reserved) = (errno.to_wire(), number);
                break;
            }
        }
        if answer.errno == 0 {
            self.restore_settings(id, Some(settings));
        }
        let sessions = &mut self.sockets.sessions;
        self.buffer.write(answer, |_| (), |answer| sessions.deliver(id, answer, sink)).map(drop)
    }

    pub(super) fn restore_settings(&mut self, id: SessionId, settings: Option<Arc<Settings>>) {
        self.sockets.set_settings(id, settings.filter(|settings| !settings.is_empty()));
        self.buffer.show_xfrm(self.sockets.shows_xfrm());
    }

    /// A request that the engine handles.
    pub(super) fn handle(
        &mut self,
        id: SessionId,
        message: &Message<'_>,
        now: Time,
        sink: &mut impl Sink,
    ) -> Result<(), Errno> {
        // The answer of one that is shown none would be hidden from it.
        let is_sub = message.has(Ext::X_XFRM) && is_sub_policy(message.bytes());
        if is_sub && self.sockets.sessions.get(id).is_some_and(|socket| !socket.xfrm) {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some(settings) = self.sockets.sessions.get(id).and_then(|socket| socket.settings.clone()) else {
            return self.with_engine(now, Some(id), sink, |engine, cx| engine.request(message, cx));
        };
        let world = *settings.world();
        let whole = settings.apply(message)?;
        let request = match &whole {
            Some(bytes) => Message::parse(bytes, Profile::Linux).map_err(|_| Errno::EINVAL)?,
            None => *message,
        };
        self.with_engine(now, Some(id), sink, |engine, cx| {
            match request.header().msg_type {
                MessageType::FLUSH | MessageType::X_SPDFLUSH if !world.is_all() => {
                    return flush(engine, &request, &world, cx);
                }
                // No XFRM interface is a part of an SA's name, and one without a mark is found by every mark.
                MessageType::GET | MessageType::DELETE | MessageType::UPDATE if !world.is_all() => {
                    ask(engine, &request, &world, cx)?;
                }
                _ => {}
            }
            engine.request(&request, cx)
        })
    }
}

/// Looks whether the SA of a request is in a world.
///
/// # Errors
/// ESRCH: it is not.
fn ask<E: KeyEngine>(engine: &mut E, request: &Message<'_>, world: &World, cx: &mut Context<'_>) -> Result<(), Errno> {
    let Context { now, registered, out, buffer } = cx;
    let mut asking = Asking { out: &mut **out, answer: Zeroizing::default() };
    let mut cx = Context { now: *now, registered: *registered, out: &mut asking, buffer };
    let mut name = Zeroizing::new(vec![0; request.bytes().len()]);
    let header = Header { msg_type: MessageType::GET, ..request.header() };
    let mut writer = Writer::new(&mut name, header, Profile::Linux);
    for ext in [Ext::SA, Ext::ADDRESS_SRC, Ext::ADDRESS_DST] {
        if let Some(extension) = request.extension(ext) {
            writer.raw(extension.bytes);
        }
    }
    if let Some(mark) = request.xfrm().attributes.payload(attribute::MARK) {
        let mut attributes = Vec::new();
        push(&mut attributes, attribute::MARK, mark);
        writer.xfrm(0, 0, &attributes);
    }
    let name = writer.finish().map_err(|_| Errno::EINVAL)?;
    let name = Message::parse(name, Profile::Linux).map_err(|_| Errno::EINVAL)?;
    if engine.request(&name, &mut cx).is_err() {
        // The request itself has the error that belongs to it.
        return Ok(());
    }
    match scope(&asking.answer) {
        Some((mark, if_id)) if !world.has(mark, if_id) => Err(Errno::ESRCH),
        _ => Ok(()),
    }
}

/// Deletes what is in a world, one after the other. Others hear of each, and not of a flush.
fn flush<E: KeyEngine>(
    engine: &mut E,
    request: &Message<'_>,
    world: &World,
    cx: &mut Context<'_>,
) -> Result<(), Errno> {
    refuse_xfrm(request)?;
    let header = request.header();
    header.satype.protocol().ok_or(Errno::EINVAL)?;
    let msg_type = if header.msg_type == MessageType::FLUSH { MessageType::DUMP } else { MessageType::X_SPDDUMP };
    let dumped = dump(engine, Header { msg_type, len: 2, ..header }, cx.now, cx.buffer, |shown| {
        let (mark, if_id) = scope(shown).unwrap_or((Mark::NONE, 0));
        (world.has(mark, if_id) && !is_sub_policy(shown))
            .then(|| deletion(shown, header.seq, header.pid).ok())
            .flatten()
    })?;
    cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
    for deletion in dumped {
        if let Ok(message) = Message::parse(&deletion, Profile::Linux) {
            // It may have gone meanwhile, or be a larval without an SPI, which ends by itself.
            let _ = engine.request(&message, cx);
        }
    }
    Ok(())
}

/// What `take` makes of each message of a dump.
fn dump<E: KeyEngine>(
    engine: &mut E,
    header: Header,
    now: Time,
    buffer: &mut MessageBuffer,
    take: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Errno> {
    let mut request = [0; HEADER_LEN];
    let request = Writer::new(&mut request, header, Profile::Linux).finish().map_err(|_| Errno::EINVAL)?;
    let request = Message::parse(request, Profile::Linux).map_err(|_| Errno::EINVAL)?;
    let mut cursor = engine.dump(&request, now)?;
    let (mut taken, mut message) = (Vec::new(), Zeroizing::default());
    let outcome = loop {
        match engine.dump_next(&mut cursor, now, &mut DumpMessage::new(buffer, &mut message)) {
            Ok(DumpStep::Entry) => taken.extend(take(&message)),
            Ok(DumpStep::End) => break Ok(taken),
            Err(errno) => break Err(errno),
        }
    };
    engine.dump_end(cursor);
    outcome
}
