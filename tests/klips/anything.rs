//! Whatever comes, the engine answers or refuses; and what it then holds makes sense.

use pfkey_rs::klips::number::*;
use pfkey_rs::klips::table::{Direction, extensions as table};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};
use proptest::prelude::*;

use crate::world::*;

/// Messages that mean something, about few SAs and flows, so that they meet.
fn meaningful() -> impl Strategy<Value = Msg> {
    let spi = || prop::sample::select(vec![0x100_u32, 0x101, 0x102]);
    let types = || prop::sample::select(vec![S::AH, S::ESP, X_SATYPE_IPIP, X_SATYPE_COMP]);
    let net = || prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "0.0.0.0/0", "10.1.1.1/32"]);
    let sa = |spi: u32, satype: S| match satype {
        S::AH => ah(spi),
        S::ESP => esp(spi).lifetime(Ext::LIFETIME_HARD, 0, 100, 0, 5).lifetime(Ext::LIFETIME_SOFT, 0, 50, 0, 2),
        X_SATYPE_IPIP => tunnel(spi),
        _ => comp(spi),
    };
    let add = (spi(), types()).prop_map(move |(spi, satype)| sa(spi, satype));
    let update = (spi(), types()).prop_map(move |(spi, satype)| {
        let mut message = sa(spi, satype);
        message.head[1] = M::UPDATE.0;
        message
    });
    let flag = prop::sample::select(vec![0, 2, 8]);
    prop_oneof![
        4 => add,
        1 => update,
        2 => (spi(), types(), prop::sample::select(vec![M::DELETE, M::GET])).prop_map(|(spi, t, m)| named(m, t, spi)),
        1 => types().prop_map(|t| Msg::new(M::FLUSH, t)),
        1 => types().prop_map(|t| Msg::new(M::REGISTER, t)),
        2 => (types(), spi(), 0_u32..3).prop_map(|(t, min, n)| Msg::new(M::GETSPI, t).ends().range(min, min + n)),
        4 => (types(), spi(), types(), spi()).prop_map(|(t, spi, t2, spi2)| group(t, spi, t2, spi2)),
        1 => (types(), spi()).prop_map(|(t, spi)| Msg::new(X_GRPSA, t).sa(Sa::spi(spi)).address(Ext::ADDRESS_DST, B)),
        3 => (types(), spi(), flag, net(), net()).prop_map(|(t, spi, flags, src, dst)| {
            eroute(t, spi, src, dst).without(Ext::SA).sa(Sa::flagged(spi, flags))
        }),
        3 => (256_u32..262, net(), net()).prop_map(|(magic, src, dst)| shunt(magic, src, dst)),
        1 => (net(), net()).prop_map(|(src, dst)| delflow(src, dst)),
    ]
}

/// A message with some bytes changed behind its first eight, or cut.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (meaningful(), changes, any::<bool>()).prop_map(|(message, changes, cut)| {
        let mut bytes = message.bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut && bytes.len() > 24 {
            bytes.truncate(bytes.len() - 8);
            let words = (bytes.len() / 8) as u16;
            bytes[4..6].copy_from_slice(&words.to_ne_bytes());
        }
        bytes
    })
}

/// What must hold after anything.
fn check(w: &mut World) -> Result<(), TestCaseError> {
    let sadb = w.engine().sadb();
    for sa in sadb.iter() {
        let group = sadb.group(&sa.said);
        prop_assert!(group.contains(&sa.said), "an SA is in its own group");
        for pair in group.windows(2) {
            let [inner, outer] = [sadb.get(&pair[0]).unwrap(), sadb.get(&pair[1]).unwrap()];
            prop_assert_eq!((inner.outer(), outer.inner()), (Some(outer.said), Some(inner.said)));
        }
    }
    let sarefs: std::collections::BTreeSet<u32> = sadb.iter().map(|sa| sa.saref).collect();
    prop_assert_eq!(sarefs.len(), sadb.iter().count(), "references are each one SA's");
    for socket in 0..w.ids.len() {
        for message in w.heard(socket) {
            let head = header(&message);
            prop_assert_eq!(usize::from(head.len) * 8, message.len());
            let rule = table(Direction::Out, head.msg_type);
            let list = types(&message);
            prop_assert!(list.is_sorted(), "extensions ascend");
            prop_assert!(!list.contains(&Ext::KEY_AUTH.0) && !list.contains(&Ext::KEY_ENCRYPT.0), "no keys");
            // A forwarded ACQUIRE is a program's own.
            if head.msg_type != M::ACQUIRE {
                prop_assert!(list.iter().all(|ext| rule.permitted.has(Ext(*ext))), "{:?}", head.msg_type);
            }
            let clears = head.msg_type == X_DELFLOW && list == [1];
            if head.errno == 0 && head.msg_type != M::EXPIRE && !clears {
                prop_assert!(rule.required.iter().all(|ext| list.contains(&ext.0)), "{:?}", head.msg_type);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_leaves_sense(messages in prop::collection::vec(meaningful(), 1..60)) {
        let mut w = World::new(2);
        for (number, message) in messages.iter().enumerate() {
            let _ = w.send(number % 2, message);
            let _ = w.udp(number as u64, "10.1.1.1", "11.1.1.1", 9);
            w.pass(7);
            check(&mut w)?;
        }
        w.engine().take_released();
    }

    #[test]
    fn any_bytes_are_answered_or_refused(messages in prop::collection::vec(broken(), 1..30)) {
        let mut w = World::new(2);
        for bytes in messages {
            let _ = w.send_bytes(0, &bytes);
            check(&mut w)?;
        }
    }

    #[test]
    fn any_text_names_an_sa_or_does_not(text in "(%?(ah|esp|tun|comp|int|pass))?[.:0-9a-fx]{0,12}@?[0-9a-f.:]{0,12}") {
        if let Ok(said) = text.parse::<pfkey_rs::klips::Said>() {
            prop_assert_eq!(said.to_string().parse(), Ok(said));
        }
    }
}
