//! Typed batches: an outcome for each request, and nothing lost of what else arrives.

use pfkey::wire::{Header, Profile, Writer};
use pfkey::{
    Backend, Batch, Cipher, Client, Direction, Errno, Error, Event, Hmac, IpsecProtocol, MessageType, Policy, Rule, Sa,
    SaId, SaType,
};

mod support;
use support::Daemon;

const SRC: [u8; 4] = [192, 0, 2, 1];
const DST: [u8; 4] = [192, 0, 2, 2];

fn esp(spi: u32) -> Sa {
    Sa::esp(SRC, DST, spi).encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32])
}

fn id(spi: u32) -> SaId {
    SaId::new(DST.into(), spi, IpsecProtocol::ESP)
}

fn policy(to: &str) -> Policy {
    let prefix = |text: &str| text.parse().expect("a prefix");
    Policy::new(Direction::OUTBOUND, prefix("10.1.0.0/16"), prefix(to)).rule(Rule::esp().tunnel(SRC, DST).unique(7))
}

fn errnos(outcomes: &[Result<(), Error>]) -> Vec<Option<Errno>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().and_then(Error::errno)).collect()
}

fn spis(keys: &mut Client) -> Vec<u32> {
    let mut spis: Vec<_> = keys.dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA").spi).collect();
    spis.sort_unstable();
    spis
}

fn each_has_its_outcome(keys: &mut Client) {
    let mut batch = Batch::default();
    let fill = |batch: &mut Batch| -> Result<(), Error> {
        batch.add(&esp(0x1000))?.add(&esp(0x1001))?.add(&esp(0x1000))?.update(&esp(0x1001).reqid(9))?;
        batch.update(&esp(0x1009))?.delete(id(0x1000))?.delete(id(0x1000))?;
        batch
            .add_policy(&policy("10.2.0.0/16"))?
            .add_policy(&policy("10.2.0.0/16"))?
            .add_policy(&policy("10.3.0.0/16"))?;
        batch
            .update_policy(&policy("10.4.0.0/16"))?
            .delete_policy(&policy("10.3.0.0/16"))?
            .delete_policy_by_id(100_001)?;
        Ok(())
    };
    fill(&mut batch).expect("they make sense");
    assert_eq!(batch.len(), 13);
    let outcomes = keys.run(&batch).expect("it is done");
    let (exists, no_sa, no_policy) = (Some(Errno::EEXIST), Some(Errno::ESRCH), Some(Errno::ENOENT));
    let of_sas = [None, None, exists, None, no_sa, None, no_sa];
    let of_policies = [None, exists, None, None, None, no_policy];
    assert_eq!(errnos(&outcomes), [&of_sas[..], &of_policies].concat());
    assert!(matches!(outcomes[2], Err(Error::Refused { request: MessageType::ADD, .. })));
    assert_eq!(spis(keys), [0x1001]);
    assert_eq!(keys.policies().expect("X_SPDDUMP").count(), 2);
    // More than travel together.
    let mut batch = Batch::default();
    for spi in 0x2000..0x20c8 {
        batch.add(&esp(spi)).expect("it makes sense");
    }
    assert_eq!(keys.run(&batch).expect("it is done").iter().filter(|outcome| outcome.is_ok()).count(), 200);
    assert_eq!(spis(keys).len(), 201);
    // A batch may be done again.
    assert!(errnos(&keys.run(&batch).expect("it is done")).iter().all(|errno| *errno == exists));
    let mut batch = Batch::default();
    batch.flush(SaType::ESP).expect("it makes sense").flush_policies().expect("it makes sense");
    assert_eq!(errnos(&keys.run(&batch).expect("it is done")), [None, None]);
    assert_eq!((spis(keys), keys.policies().expect("X_SPDDUMP").count()), (vec![], 0));
    assert!(keys.run(&Batch::default()).expect("nothing is done").is_empty());
    // No answer is left, but Linux says that it has flushed to everybody, and so twice to who asked.
    while let Some(event) = keys.try_event().expect("events") {
        assert!(matches!(event, Event::SasFlushed(_) | Event::PoliciesFlushed), "{event:?}");
    }
}

#[test]
fn each_request_has_its_outcome_where_they_travel_together() {
    each_has_its_outcome(&mut Client::open_with(&Backend::Embedded).expect("an embedded engine"));
}

#[test]
fn each_request_has_its_outcome_where_they_travel_alone() {
    each_has_its_outcome(&mut Client::open_with(&Daemon::start().backend()).expect("a client"));
}

#[test]
fn what_makes_no_sense_is_not_in_the_batch() {
    let mut batch = Batch::default();
    assert!(matches!(batch.add(&esp(1)), Err(Error::Invalid(_))));
    assert!(batch.is_empty());
}

#[test]
fn a_message_that_was_written_elsewhere_is_done_as_it_is() {
    let mut bytes = [0; 16];
    let header = Header::new(MessageType::FLUSH, SaType::ESP, 5, 77);
    Writer::new(&mut bytes, header, Profile::Linux).finish().expect("there is room");
    let mut batch = Batch::default();
    batch.add(&esp(0x1000)).expect("it makes sense").push(&bytes).expect("it is a message");
    let mut keys = Client::open_with(&Backend::Embedded).expect("an embedded engine");
    assert_eq!(errnos(&keys.run(&batch).expect("it is done")), [None, None]);
    assert_eq!(spis(&mut keys), []);
}

#[test]
fn what_others_did_before_is_kept() {
    let daemon = Daemon::start();
    let mut keys = Client::open_with(&daemon.backend()).expect("a client");
    Client::open_with(&daemon.backend()).expect("another").add(&esp(0x1000)).expect("ADD");
    let mut batch = Batch::default();
    batch.add(&esp(0x2000)).expect("it makes sense");
    assert_eq!(errnos(&keys.run(&batch).expect("it is done")), [None]);
    assert!(matches!(keys.try_event(), Ok(Some(Event::SaAdded(sa))) if sa.spi == 0x1000));
    assert!(matches!(keys.try_event(), Ok(None)));
}

/// The answers to one are told to the other, too.
#[test]
fn each_client_has_the_outcomes_of_its_own() {
    let daemon = Daemon::start();
    let mut clients = [(); 2].map(|()| Client::open_with(&daemon.backend()).expect("a client"));
    let mut batch = Batch::default();
    batch.add(&esp(0x1000)).expect("it makes sense").add(&esp(0x1001)).expect("it makes sense");
    clients[0].run(&batch).expect("it is done").all().expect("both are added");
    let outcomes = clients[1].run(&batch).expect("it is done");
    assert_eq!(errnos(&outcomes), [Some(Errno::EEXIST); 2]);
    assert_eq!(outcomes.all().expect_err("it is there").errno(), Some(Errno::EEXIST));
}

/// A promiscuous descriptor receives a copy of each of its own requests before the answer.
#[test]
fn copies_of_requests_are_not_taken_for_their_answers() {
    let mut keys = Client::open_with(&Backend::Embedded).expect("an embedded engine");
    keys.set_promiscuous(true).expect("X_PROMISC");
    let mut batch = Batch::default();
    batch.add(&esp(0x1000)).expect("it makes sense").add(&esp(0x1000)).expect("it makes sense");
    assert_eq!(errnos(&keys.run(&batch).expect("it is done")), [None, Some(Errno::EEXIST)]);
}
