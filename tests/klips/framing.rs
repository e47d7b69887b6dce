//! What `write` refuses by itself, and what every message must be.

use pfkey_rs::hub::Errno;
use pfkey_rs::klips::number::*;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::world::*;

/// `pfkey_sendmsg`: nobody hears of what is no message.
#[test]
fn what_is_no_message_fails_in_write_alone() {
    let mut w = World::new(2);
    let good = Msg::new(M::FLUSH, S::ESP).bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases: [(Vec<u8>, Errno); 10] = [
        (good[..15].to_vec(), Errno::EMSGSIZE),
        (Vec::new(), Errno::EMSGSIZE),
        ([good.clone(), vec![0]].concat(), Errno::EMSGSIZE),
        ([good.clone(), vec![0; 8]].concat(), Errno::EMSGSIZE),
        (with(4, 1), Errno::EMSGSIZE),
        (with(0, 1), Errno::EINVAL),
        (with(6, 1), Errno::EINVAL),
        (with(1, 0), Errno::EINVAL),
        (with(1, 18), Errno::EINVAL),
        // The version is looked at before the length.
        ([with(0, 3), vec![0]].concat(), Errno::EINVAL),
    ];
    for (bytes, errno) in cases {
        assert_eq!(w.send_bytes(0, &bytes), Err(errno), "{bytes:?}");
        assert!(w.heard(0).is_empty() && w.heard(1).is_empty(), "nobody hears of {bytes:?}");
    }
    assert_eq!(w.send_bytes(0, &good), Ok(()));
}

/// Every other error is a header with an errno that every open socket hears (`World::fails`).
#[test]
fn an_error_is_told_to_everybody_and_to_the_writer() {
    let mut w = World::new(3);
    assert_eq!(w.fails(&named(M::DELETE, S::ESP, SPI)), Errno::ESRCH);
    assert_eq!(w.fails(&Msg::new(M::DUMP, S::ESP)), Errno::ENOSYS);
}

#[test]
fn an_errno_comes_with_acquire_only() {
    let mut w = World::new(1);
    assert_eq!(w.fails(&Msg::new(M::FLUSH, S::ESP).with_errno(1)), Errno::EINVAL);
    w.register(0, S::ESP);
    assert_eq!(w.send(0, &Msg::new(M::ACQUIRE, S::ESP).with_errno(1)), Ok(()));
}

/// The SA types that KLIPS's `satype2proto` knows: AH, ESP, IPIP, COMP, INT.
#[test]
fn messages_about_an_sa_need_a_type_that_has_sas() {
    for msg_type in [M::GETSPI, M::UPDATE, M::ADD, M::DELETE, M::GET, X_GRPSA, X_ADDFLOW] {
        for satype in 0..=255 {
            let has_sas = [2, 3, 9, 10, 11].contains(&satype);
            let refusal = refusal(&Msg::new(msg_type, S(satype)));
            let refused = matches!(refusal, Some(pfkey_rs::klips::Refusal::SaType(t)) if t == satype);
            assert_eq!(refused, !has_sas, "message {msg_type:?}, SA type {satype}: {refusal:?}");
        }
    }
    for msg_type in [M::ACQUIRE, M::REGISTER, M::EXPIRE] {
        let mut w = World::new(1);
        assert_eq!(w.fails(&Msg::new(msg_type, S::UNSPEC)), Errno::EINVAL, "{msg_type:?}");
        assert_eq!(w.fails(&Msg::new(msg_type, S(12))), Errno::EINVAL, "{msg_type:?}");
    }
}

/// Why the parser refuses a message, without what the engine makes of it.
pub fn refusal(message: &Msg) -> Option<pfkey_rs::klips::Refusal> {
    use pfkey_rs::klips::parse::{check_framing, parse};
    use pfkey_rs::klips::table::Direction;
    let bytes = message.bytes();
    let header = check_framing(&bytes).expect("a message");
    parse(&bytes, header, Direction::In, true).err()
}

#[test]
fn extensions_must_add_up() {
    use pfkey_rs::klips::Refusal;
    let add = esp(SPI);
    let twice = add.clone().sa(Sa::spi(SPI));
    assert_eq!(refusal(&twice), Some(Refusal::Twice(1)));
    assert_eq!(
        refusal(&add.clone().ext(Ext(31), &[0; 4])),
        Some(Refusal::Unknown(31)),
        "unknown ones are not passed over"
    );
    assert_eq!(refusal(&add.clone().ext(Ext(0), &[0; 4])), Some(Refusal::Unknown(0)));
    let mut w = World::new(1);
    let len = add.bytes().len();
    for (words, errno) in [(0_u16, Errno::EINVAL), (99, Errno::EINVAL)] {
        let mut bytes = add.bytes();
        // The last extension is the 32 bytes of the encryption key.
        bytes[len - 32..len - 30].copy_from_slice(&words.to_ne_bytes());
        assert_eq!(w.send_bytes(0, &bytes), Err(errno), "a key of {words} words");
    }
}

#[test]
fn any_order_of_extensions_is_taken() {
    let mut w = World::new(1);
    let mut add = esp(SPI);
    add.extensions.reverse();
    let answer = w.ask(&add);
    assert_eq!(types(&answer), [1, 5, 6], "answers ascend");
}
