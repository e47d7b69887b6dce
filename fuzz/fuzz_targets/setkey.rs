//! setkey's language, what `save` makes of what it says, and `explain`'s flow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pfkey_cli::explain;
use pfkey_cli::model::policy::{Policy, PolicyEntry};
use pfkey_cli::model::sa::{CYCLIC_SEQ, KEPT_FLAGS, Sa, SaEntry};
use pfkey_cli::setkey::{Action, Lines, parse};
use pfkey_rs::wire::{Message, MessageType, Profile};

/// In the place of the C library's: no name is known, and nothing goes out to the network.
#[unsafe(no_mangle)]
unsafe extern "C" fn getaddrinfo(
    node: *const libc::c_char,
    _service: *const libc::c_char,
    _hints: *const libc::addrinfo,
    _result: *mut *mut libc::addrinfo,
) -> libc::c_int {
    if !node.is_null() {
        // SAFETY: not null; the caller gives a string.
        let name = unsafe { std::ffi::CStr::from_ptr(node) }.to_bytes();
        // A key that stands in the wrong place is nobody's name.
        let is_key = matches!(name, [b'0', b'x' | b'X', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit));
        let has_letters = name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        assert!(has_letters && !is_key, "the resolver is asked for {:?}", String::from_utf8_lossy(name));
    }
    libc::EAI_NONAME
}

fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 20];
    let len = write(&mut buffer)?;
    buffer.truncate(len);
    Some(buffer)
}

/// What an ADD says, shown as a command and read again, says the same.
fn sa(sa: &Sa, msg_type: MessageType) {
    let _ = sa.title();
    // Of the flags the kernel keeps some, and tells of no others.
    let mut sa = Sa { flags: CYCLIC_SEQ | sa.flags & KEPT_FLAGS, ..sa.clone() };
    // Where none is said, a NAT's port is 4500, which is told of the address, too.
    for end in [&mut sa.src, &mut sa.dst].into_iter().filter(|end| sa.nat_t.is_some() && end.port() == 0) {
        end.set_port(4500);
    }
    let Some(bytes) = written(|buffer| sa.write(msg_type, 1, 1, buffer).ok()) else { return };
    let message = Message::parse(&bytes, Profile::Linux).expect("what is sent is a message");
    let Some(mut entry) = SaEntry::of(&message) else { return };
    let _ = entry.record();
    entry.state = 1;
    if msg_type != MessageType::ADD {
        return;
    }
    let Ok(command) = entry.command() else { return };
    let again = parse(command.as_bytes(), false);
    assert!(again.errors.is_empty(), "{}: {:?}", *command, again.errors);
    let Some(Action::Add(again)) = again.commands.first().map(|command| &command.action) else {
        panic!("{}", *command)
    };
    let again = written(|buffer| again.write(msg_type, 1, 1, buffer).ok());
    assert_eq!(Some(bytes), again, "{}", *command);
}

fn policy(policy: &Policy, msg_type: MessageType) {
    let _ = (policy.title(), policy.forwarded().title());
    let Some(bytes) = written(|buffer| policy.write(msg_type, 1, 1, buffer).ok()) else { return };
    let message = Message::parse(&bytes, Profile::Linux).expect("what is sent is a message");
    let Some(entry) = PolicyEntry::of(&message, 1) else { return };
    let _ = entry.record();
    if msg_type != MessageType::X_SPDADD {
        return;
    }
    for with_forward in [false, true] {
        let Ok((command, note)) = entry.command(with_forward) else { continue };
        let again = parse(command.as_bytes(), false);
        assert!(again.errors.is_empty(), "{command}: {:?}", again.errors);
        let Some(Action::SpdAdd(again)) = again.commands.first().map(|command| &command.action) else {
            panic!("{command}")
        };
        let again = written(|buffer| again.write(msg_type, 1, 1, buffer).ok());
        assert!(note.is_some() || again.as_ref() == Some(&bytes), "{command}: {bytes:02x?} became {again:02x?}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let lines = Lines::new(bytes);
    for kernel in [false, true] {
        let parsed = parse(bytes, kernel);
        for complaint in parsed.errors.iter().chain(&parsed.warnings) {
            assert!(complaint.at <= bytes.len());
            let _ = lines.locate(complaint.at);
        }
        for command in &parsed.commands {
            match &command.action {
                Action::Add(one) => sa(one, MessageType::ADD),
                Action::Update(one) => sa(one, MessageType::UPDATE),
                Action::GetSpi(one) => sa(one, MessageType::GETSPI),
                Action::Get(one) => sa(one, MessageType::GET),
                Action::Delete(one) => sa(one, MessageType::DELETE),
                Action::SpdAdd(one) => policy(one, MessageType::X_SPDADD),
                Action::SpdUpdate(one) => policy(one, MessageType::X_SPDUPDATE),
                Action::SpdDelete(one, _) => policy(one, MessageType::X_SPDDELETE),
                Action::DeleteAll(..) | Action::Flush(_) | Action::Dump(_) => {}
                Action::SpdTagged(..) | Action::SpdFlush | Action::SpdDump => {}
            }
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = explain::flow(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    let _ = explain::flow(&[text.into_owned()]);
});
