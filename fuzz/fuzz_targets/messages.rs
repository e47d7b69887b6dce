//! Any bytes as a message: views, readers, printers of every dialect.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use pfkey_rs::align;
use pfkey_rs::klips::parse;
use pfkey_rs::klips::table::Direction;
use pfkey_rs::model::judge::Judge;
use pfkey_rs::model::label::SecurityLabel;
use pfkey_rs::model::request::Request;
use pfkey_rs::model::sa::Sa;
use pfkey_rs::model::view::{PolicyView, SaView};
use pfkey_rs::model::{migrate, policy::Policy, read};
use pfkey_rs::policy;
use pfkey_rs::print::{self, SocketPolicyFilter, Style, Utc};
use pfkey_rs::wire::xfrm::Carrier;
use pfkey_rs::wire::{
    AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Errno, ExtensionType, HEADER_LEN, Header, Message, Profile,
    Requests, Writer, split_batch,
};

/// An engine that has every algorithm.
struct Everything;

impl Judge for Everything {
    fn has_auth(&mut self, _: AuthAlgorithm) -> bool {
        true
    }

    fn has_encrypt(&mut self, _: EncryptAlgorithm) -> bool {
        true
    }

    fn has_compress(&mut self, _: CompressionAlgorithm) -> bool {
        true
    }

    fn label(&mut self, request: &Message<'_>) -> Result<Option<SecurityLabel>, Errno> {
        SecurityLabel::of(request)
    }

    fn attribute(&mut self, _: u16) -> Result<(), Errno> {
        Ok(())
    }

    fn new_reqid(&mut self) -> Option<u32> {
        Some(0x4000)
    }
}

const UTC: Utc = Utc { now: 1_700_003_600 };

fn views(bytes: &[u8], profile: Profile) {
    let Ok(message) = Message::parse(bytes, profile) else { return };
    assert_eq!(message.extensions().map(|e| e.bytes.len()).sum::<usize>() + HEADER_LEN, bytes.len());
    for t in (0..40).map(ExtensionType) {
        let _ = (message.has(t), message.extension(t), message.lifetime(t), message.address(t), message.key(t));
        let _ = (message.nat_t_port(t), message.identity(t), message.supported(t).map(Iterator::count));
    }
    let _ = (message.sa(), message.sa2(), message.spirange(), message.nat_t_type(), message.sec_ctx());
    let _ = (message.filter(), message.kmaddress(), message.kmprivate(), message.sensitivity());
    let _ = message.proposal().map(|(_, combs)| combs.count());
    if let Some((_, requests)) = message.policy() {
        assert!(Requests::new(requests).count() <= requests.len() / 16);
    }
    // What af_key reads of requests, and what is read of its answers.
    let _ = (read::ends(&message), read::mode(&message), read::selector(&message));
    let _ = read::sa_id(&message, &mut Everything);
    let said = message.xfrm();
    for carrier in [Carrier::Sa, Carrier::Policy, Carrier::SaName, Carrier::PolicyName] {
        if said.check(carrier, 0).is_ok() {
            assert!(said.attributes.is_whole(), "{said:?}");
        }
    }
    let _ = Request::read(&message, 1_700_000_000, &mut Everything);
    let _ = migrate::read_migration(&message).map(|migration| {
        let mut buffer = vec![0; 1 << 16];
        let mut writer = Writer::new(&mut buffer, migrate::migration_header(&migration), Profile::Linux);
        migrate::write_migration(&mut writer, &migration);
        writer.finish().map(|written| {
            let again = Message::parse(written, Profile::Linux).expect("what was written is a message");
            assert!(migrate::read_migration(&again).is_ok(), "{migration:?}");
        })
    });
    let _ = PolicyView::of_message(&message).map(|view| Policy::from(&view));
    let _ = SaView::of_message(&message).map(|view| Sa::from(&view));
}

fuzz_target!(|bytes: &[u8]| {
    for profile in [Profile::Linux, Profile::Klips] {
        views(bytes, profile);
    }
    for one in split_batch(bytes) {
        assert!(!one.is_empty());
    }
    let mut slots = [None; align::SLOTS];
    let _ = align::align(bytes, &mut slots);
    assert!(slots.iter().flatten().all(|at| *at <= bytes.len()));
    if let Some(header) = Header::read(bytes) {
        let _ = align::check_header(header);
        for direction in [Direction::In, Direction::Out] {
            for nat_t in [false, true] {
                let _ = parse::parse(bytes, header, direction, nat_t);
            }
        }
    }
    let half = bytes.split_at(bytes.len() / 2);
    let _ = align::check_addresses(half.0, half.1);

    let mut filter = SocketPolicyFilter { hide: bytes.len() % 16 == 8, hidden: 0 };
    for with_ports in [false, true] {
        let _ = print::sadump(bytes, with_ports, &UTC);
        let _ = print::spdump(bytes, with_ports, &mut filter, &UTC);
    }
    let _ = print::kdebug_sadb(bytes);
    for style in [Style::Corrected, Style::Book] {
        let _ = print::listing(bytes, style, &UTC);
    }
    assert_eq!(print::hexdump(bytes).iter().filter(|b| b.is_ascii_hexdigit()).count(), 2 * bytes.len());
    let _ = policy::dump(bytes, b" ", true);
});
