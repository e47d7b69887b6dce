//! X_GRPSA.

use pfkey_rs::hub::Errno;
use pfkey_rs::klips::Said;
use pfkey_rs::klips::number::*;
use pfkey_rs::wire::{ExtensionType as Ext, SaType as S};

use crate::world::*;

fn world() -> World {
    let mut w = World::new(2);
    for add in [tunnel(0x101), esp(0x102), ah(0x103)] {
        w.ask(&add);
    }
    w
}

/// The group of the tunnel, inner before outer.
fn protocols(w: &mut World) -> Vec<u8> {
    let tunnel = Said { dst: B.parse().unwrap(), spi: 0x101, proto: 4 };
    w.engine().sadb().group(&tunnel).iter().map(|said| said.proto).collect()
}

#[test]
fn grpsa_links_two_sas_and_tells_everybody() {
    let mut w = world();
    assert_eq!(w.send(0, &group(X_SATYPE_IPIP, 0x101, S::ESP, 0x102)), Ok(()));
    let heard = w.heard(1);
    assert_eq!(w.heard(0), heard);
    assert_eq!(types(&heard[0]), [1, 6, 18, 19, 20]);
    assert_eq!(body(&heard[0], X_EXT_SATYPE2), [3, 0, 0, 0]);
    assert_eq!(body(&heard[0], X_EXT_SA2)[..4], [0, 0, 1, 2]);
    assert_eq!(protocols(&mut w), [4, 50]);
    w.ask(&group(S::ESP, 0x102, S::AH, 0x103));
    assert_eq!(protocols(&mut w), [4, 50, 51]);
}

#[test]
fn grpsa_needs_both_sas() {
    let mut w = world();
    assert_eq!(w.fails(&group(X_SATYPE_IPIP, 0x999, S::ESP, 0x102)), Errno::ENOENT);
    assert_eq!(w.fails(&group(X_SATYPE_IPIP, 0x101, S::ESP, 0x999)), Errno::ENOENT);
    let whole = group(X_SATYPE_IPIP, 0x101, S::ESP, 0x102);
    for missing in [X_EXT_SATYPE2, X_EXT_SA2, X_EXT_ADDRESS_DST2] {
        assert_eq!(w.fails(&whole.clone().without(missing)), Errno::ENOENT, "half a name");
    }
}

#[test]
fn grpsa_makes_no_forks_and_no_rings() {
    let mut w = world();
    w.ask(&group(X_SATYPE_IPIP, 0x101, S::ESP, 0x102));
    assert_eq!(w.fails(&group(X_SATYPE_IPIP, 0x101, S::ESP, 0x102)), Errno::EEXIST);
    assert_eq!(w.fails(&group(X_SATYPE_IPIP, 0x101, S::AH, 0x103)), Errno::EEXIST, "it has an outer one");
    assert_eq!(w.fails(&group(S::AH, 0x103, S::ESP, 0x102)), Errno::EEXIST, "it has an inner one");
    assert_eq!(w.fails(&group(S::ESP, 0x102, X_SATYPE_IPIP, 0x101)), Errno::EEXIST, "a ring");
    assert_eq!(w.fails(&group(S::AH, 0x103, S::AH, 0x103)), Errno::EEXIST, "a ring of one");
    assert_eq!(protocols(&mut w), [4, 50]);
}

#[test]
fn grpsa_of_one_takes_its_group_apart() {
    let mut w = world();
    w.ask(&group(X_SATYPE_IPIP, 0x101, S::ESP, 0x102));
    w.ask(&group(S::ESP, 0x102, S::AH, 0x103));
    let answer = w.ask(&Msg::new(X_GRPSA, S::ESP).sa(Sa::spi(0x102)).address(Ext::ADDRESS_DST, B));
    assert_eq!(types(&answer), [1, 6]);
    assert_eq!(protocols(&mut w), [4]);
    assert_eq!(w.engine().sadb().iter().filter(|sa| sa.inner().is_some() || sa.outer().is_some()).count(), 0);
    assert_eq!(w.engine().group_text(), "tun0x101@10.0.0.2\nesp0x102@10.0.0.2\nah0x103@10.0.0.2\n");
}
