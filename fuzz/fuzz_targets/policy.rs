//! Policies: any text, and any bytes; what is shown is read back.
#![no_main]
#![forbid(unsafe_code)]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use pfkey_rs::model::policy::Policy;
use pfkey_rs::policy;
use pfkey_rs::wire::PolicyType;

/// Text that is a policy gives bytes, which give text, which gives the same policy.
fn text(text: &[u8]) {
    let outcome = policy::parse(text);
    let spec = match outcome.result {
        Ok(spec) => spec,
        // The position lies in the text, or at its end.
        Err(error) => return assert!(error.position + error.length <= text.len()),
    };
    let Ok(bytes) = spec.to_bytes() else { return };
    assert_eq!(usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])) * 8, bytes.len());
    for like in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
        let _ = Policy::of_socket(&bytes, like);
    }
    // libipsec shows neither priority 0, which reads as the default, nor the requests of a policy that heeds none. What it
    // shows and does not read: "entrust", reqids behind '#'.
    let unshown = spec.policy_type != PolicyType::IPSEC && !spec.requests.is_empty();
    if spec.priority == 0 || unshown {
        return;
    }
    let shown = policy::dump(&bytes, b" ", true).expect("it shows what it made");
    if let Ok(again) = policy::parse(&shown).result {
        assert_eq!(again.to_bytes().ok(), Some(bytes), "{}", String::from_utf8_lossy(&shown));
    }
}

fn bytes(bytes: &[u8]) {
    for with_ports in [false, true] {
        for delimiter in [&b" "[..], b"\n\t", b""] {
            let Ok(shown) = policy::dump(bytes, delimiter, with_ports) else { continue };
            if !delimiter.is_empty() {
                text(&shown);
            }
        }
    }
    for like in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
        let _ = Policy::of_socket(bytes, like);
    }
}

fuzz_target!(|data: &[u8]| {
    text(data);
    bytes(data);
});
