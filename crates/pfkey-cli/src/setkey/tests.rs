//! The parser against what setkey itself sends, and against texts that are wrong.

use pfkey_wire::{Message, MessageType as M, PolicyDirection, Profile, SaType};

use super::{Action, Lines, parse, parse_files};
use crate::channel::header_only;
use crate::execute::tagged;
use crate::model::sa::SaEntry;

/// The message of a command, as setkey numbers it.
fn message(action: &Action) -> Vec<u8> {
    let (seq, pid) = (0, 0x0102_0304);
    let mut buffer = vec![0xa5; 4096];
    let len = match action {
        Action::Add(sa) => sa.write(M::ADD, seq, pid, &mut buffer),
        Action::Update(sa) => sa.write(M::UPDATE, seq, pid, &mut buffer),
        Action::GetSpi(sa) => sa.write(M::GETSPI, seq, pid, &mut buffer),
        Action::Get(sa) => sa.write(M::GET, seq, pid, &mut buffer),
        Action::Delete(sa) => sa.write(M::DELETE, seq, pid, &mut buffer),
        Action::Flush(satype) => header_only(M::FLUSH, *satype, seq, pid, &mut buffer),
        Action::Dump(satype) | Action::DeleteAll(satype, ..) => header_only(M::DUMP, *satype, seq, pid, &mut buffer),
        Action::SpdAdd(policy) => policy.write(M::X_SPDADD, seq, pid, &mut buffer),
        Action::SpdUpdate(policy) => policy.write(M::X_SPDUPDATE, seq, pid, &mut buffer),
        Action::SpdDelete(policy, _) => policy.write(M::X_SPDDELETE, seq, pid, &mut buffer),
        Action::SpdTagged(update, spec) => {
            tagged(if *update { M::X_SPDUPDATE } else { M::X_SPDADD }, spec, seq, pid, &mut buffer)
        }
        Action::SpdFlush => header_only(M::X_SPDFLUSH, SaType::UNSPEC, seq, pid, &mut buffer),
        Action::SpdDump => header_only(M::X_SPDDUMP, SaType::UNSPEC, seq, pid, &mut buffer),
    };
    buffer.truncate(len.unwrap());
    buffer
}

fn actions(text: &str) -> Vec<Action> {
    let parsed = parse(text.as_bytes(), false);
    assert_eq!(parsed.errors, [], "{text}");
    parsed.commands.into_iter().map(|command| command.action).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
#[cfg_attr(target_endian = "big", ignore = "recorded on little-endian machines")]
fn the_bytes_are_setkeys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/setkey_raw.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let mut compared = 0;
    for line in text.lines() {
        let golden: serde_json::Value = serde_json::from_str(line).unwrap();
        let command = golden["command"].as_str().unwrap();
        let sent: Vec<_> = golden["sent"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        let ours: Vec<_> = actions(command).iter().map(|action| hex(&message(action))).collect();
        assert_eq!(ours, sent, "{command}");
        compared += 1;
    }
    assert_eq!(compared, 16);
}

/// What is wrong with a text, as `LINE:COLUMN: TEXT`.
fn complaints(text: &str) -> Vec<String> {
    let parsed = parse(text.as_bytes(), false);
    assert!(parsed.commands.is_empty());
    let lines = Lines::new(text.as_bytes());
    let all = parsed.errors.iter().map(|error| {
        let (line, column) = lines.locate(error.at);
        format!("{line}:{column}: {}", error.text)
    });
    all.collect()
}

#[test]
fn errors_say_where_and_what() {
    for (text, complaint) in [
        ("ad 1.2.3.4;", "1:1: unknown command 'ad'; did you mean 'add'?"),
        ("flush", "1:6: ';' expected, not the end"),
        ("flush esq;", "1:7: unknown protocol 'esq'; did you mean 'esp'?"),
        ("\n add 1.2.3.4 -n esp 1;", "2:14: an address expected, not '-n'"),
        ("add 1.2.3.4 ::1 esp 1 -E null;", "1:17: one address is IPv4 and the other IPv6"),
        ("add -6 1.2.3.4 ::1 esp 1 -E null;", "1:8: '1.2.3.4' has no IPv6 address"),
        ("add -n no.such 1.2.3.4 esp 1 -E null;", "1:8: 'no.such' is no numeric address"),
        ("add 1.2.3.4 1.2.3.5 esp 0x100000000 -E null;", "1:25: this SPI has more than 32 bits"),
        ("add 1.2.3.4 1.2.3.5 esp 4096;", "1:21: esp needs -E ALGORITHM KEY (or -E null)"),
        ("add 1.2.3.4 1.2.3.5 ah 4096;", "1:21: ah needs -A ALGORITHM KEY"),
        (
            "add 1.2.3.4 1.2.3.5 ah 4096 -A hmac-sha265 0x00;",
            "1:32: unknown authentication algorithm 'hmac-sha265'; did you mean 'hmac-sha256'?",
        ),
        (
            "add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc 0x0011;",
            "1:41: aes-cbc takes a key of 128 or 192 or 256 bits; this one has 16",
        ),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc 0x00g1;", "1:45: this is no hexadecimal digit"),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc ;", "1:41: a key expected: \"text\", or 0x and hexadecimal digits"),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc \"abc;\nflush;", "1:41: this string is not closed"),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -m tunel -E null;", "1:33: unknown mode 'tunel'; did you mean 'tunnel'?"),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -r 300 -E null;", "1:33: '300': a replay window goes up to 255"),
        ("add 1.2.3.4[70000] 1.2.3.5 esp-udp 4096 -E null;", "1:13: 70000: ports go up to 65535"),
        ("add 1.2.3.4 1.2.3.5 tcp 4096 -A tcp-md5 \"x\";", "1:21: Linux has no SAs for TCP-MD5"),
        ("spdadd tagged x -P out none;", "1:15: a tag in double quotes expected, not 'x'"),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -mtunel -E null;", "1:30: unknown option '-mtunel'"),
        ("spdadd 1.0.0.0/33 2.0.0.0/8 any -P out none;", "1:16: '33': a prefix length goes up to 32"),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 tpc -P out none;",
            "1:28: unknown upper-layer protocol 'tpc'; did you mean 'tcp'?",
        ),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 icmp6 135 -P out none;",
            "1:34: TYPE,CODE (numbers up to 255) expected, not '135'",
        ),
        ("spdadd 1.0.0.0/8 2.0.0.0/8 any none;", "1:32: -P and a policy expected, not 'none'"),
        ("spdadd 1.0.0.0/8 2.0.0.0/8 any -P out;", "1:38: discard, none or ipsec expected"),
        ("spdadd 1.0.0.0/8 2.0.0.0/8 any\n-P out ipsec\n  esp/tunnel//require;", "3:3: tunnel without addresses"),
        ("spdadd 1.0.0.0/8 2.0.0.0/8 any -P out \"none\";", "1:39: '\"' has no place in a policy"),
        // What stands in quotes is no option.
        ("spdadd 1.0.0.0/8 2.0.0.0/8 any \"-P\" out none;", "1:32: -P and a policy expected, not a quoted string"),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 any \"-lh\" 5 -P out none;",
            "1:32: -P and a policy expected, not a quoted string",
        ),
        ("add \"-4n\" 1.2.3.4 1.2.3.5 esp 4096 -E null;", "1:5: an address expected, not a quoted string"),
        (
            "add 1.2.3.4 1.2.3.5 esp-udp \"9.9.9.9\" 4096 -E null;",
            "1:29: an SPI (a decimal number, or 0x and hexadecimal digits) expected, not a quoted string",
        ),
    ] {
        assert_eq!(complaints(text), [complaint], "{text}");
    }
    let policy = complaints("spdadd 1.0.0.0/8 2.0.0.0/8 any -P out ipsec esp/transprt//require;");
    assert!(policy[0].starts_with("1:49: ") && policy[0].ends_with("did you mean 'transport'?"), "{policy:?}");
}

#[test]
fn every_error_of_a_file_is_told_and_no_command_of_it_is_kept() {
    let found = complaints("flsh;\nspdflush;\ndump xx;\nadd 1.2.3.4;\nflush;\n");
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with("1:1:") && found[1].starts_with("3:6:") && found[2].starts_with("4:12:"), "{found:?}");
}

#[test]
fn complaints_never_show_keys() {
    for text in [
        "add 1.2.3.4 1.2.3.5 esp 4096 0xdeadbeefdeadbeefdeadbeef;",
        "add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc 0xdeadbeefxx;",
        "add 1.2.3.4 1.2.3.5 esp 4096 -E aes-cbc deadbeef;",
        "add 1.2.3.4 1.2.3.5 esp 4096 -E \"deadbeef\";",
        "add 1.2.3.4 1.2.3.5 esp 4096 -E null \"deadbeef\";",
    ] {
        let found = complaints(text);
        assert!(found.len() == 1 && !found[0].contains("deadbeef"), "{found:?}");
    }
}

#[test]
fn keys_in_all_notations() {
    let key = |text: &str| match actions(&format!("add 1.2.3.4 1.2.3.5 esp 4096 -E blowfish-cbc {text};")).remove(0) {
        Action::Add(sa) => sa.encrypt_key.unwrap().to_vec(),
        _ => panic!(),
    };
    assert_eq!(key("0x0011AAbbff"), [0, 0x11, 0xaa, 0xbb, 0xff]);
    // An odd number of digits begins with half a byte, as in setkey.
    assert_eq!(key("0X123456789"), [1, 0x23, 0x45, 0x67, 0x89]);
    assert_eq!(key("\"a;#b c\""), b"a;#b c");
}

#[test]
fn inbound_policies_are_copied_for_forwarded_packets() {
    let directions = |text: &str, kernel: bool| -> Vec<u8> {
        let parsed = parse(text.as_bytes(), kernel);
        assert_eq!(parsed.errors, []);
        let policies = parsed.commands.iter().map(|command| match &command.action {
            Action::SpdAdd(p) | Action::SpdUpdate(p) | Action::SpdDelete(p, _) => p.spec.direction.0,
            _ => 0,
        });
        policies.collect()
    };
    let both = [PolicyDirection::INBOUND.0, PolicyDirection::FWD.0];
    let one = "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in none;";
    assert_eq!(directions(one, false), both);
    assert_eq!(directions(one, true), both[..1]);
    assert_eq!(directions(&one.replace("spdadd", "spdadd -k"), false), both[..1]);
    assert_eq!(directions(&one.replace("spdadd", "spddelete"), false), both);
    // A file with its own policy for forwarded packets gets no copy on top of it.
    let own = "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in none; spdadd 1.0.0.0/8 2.0.0.0/8 any -P fwd discard;";
    assert_eq!(directions(own, false), both);
}

#[test]
fn a_policy_is_named_by_what_names_it_in_the_kernel() {
    let words = ["", "-X dev=1", "-X dev=2", "-X type=sub", "-X mark=1", "-X if_id=1", "-X dev=1 -X type=sub"];
    let named = words.map(|words| {
        let text = format!("spdadd 1.0.0.0/8 2.0.0.0/8 any {words} -P out none;");
        match actions(&text).remove(0) {
            Action::SpdAdd(policy) => policy.selector(),
            _ => panic!(),
        }
    });
    assert_eq!(named.iter().collect::<std::collections::HashSet<_>>().len(), words.len());
    // What it does is not its name.
    let other = actions("spdadd 1.0.0.0/8 2.0.0.0/8 any -X localok -P out prio high discard;").remove(0);
    assert!(matches!(other, Action::SpdAdd(policy) if policy.selector() == named[0]));
    // A copy for forwarded packets is none of a policy of another interface.
    let own = "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in none; spdadd 1.0.0.0/8 2.0.0.0/8 any -X dev=1 -P fwd discard;";
    assert_eq!(actions(own).len(), 3);
}

#[test]
fn a_policy_for_forwarded_packets_may_stand_in_another_file() {
    let files = [
        "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in none; exit; no more\n",
        "spdadd 1.0.0.0/8 2.0.0.0/8 any -P fwd discard; exit; nor here\n",
        "spdadd 3.0.0.0/8 2.0.0.0/8 any -P in none;",
    ];
    let text = files.concat();
    let (one, two) = (files[0].len(), files[0].len() + files[1].len());
    let parsed = parse_files(text.as_bytes(), &[one, two, text.len()], false);
    assert_eq!(parsed.errors, []);
    let found = parsed.commands.iter().map(|command| match &command.action {
        Action::SpdAdd(policy) => (command.at, policy.spec.direction),
        _ => panic!(),
    });
    let (inbound, fwd) = (PolicyDirection::INBOUND, PolicyDirection::FWD);
    assert_eq!(found.collect::<Vec<_>>(), [(0, inbound), (one, fwd), (two, inbound), (two, fwd)]);
}

#[test]
fn a_copy_asks_for_no_unique_sa() {
    let text = "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in ipsec esp/transport//unique:7 ah/transport//unique:8;";
    match actions(text).remove(1) {
        Action::SpdAdd(policy) => {
            let reqids: Vec<_> = policy.spec.requests.iter().map(|r| (r.level.0, r.reqid)).collect();
            assert_eq!(reqids, [(2, 0), (3, 8)]);
        }
        _ => panic!(),
    }
}

#[test]
fn what_setkey_takes_and_few_use() {
    for (text, commands) in [
        ("", 0),
        (" ; ;# nothing\r\n", 0),
        ("flush;dump esp;exit;nonsense", 2),
        ("spdadd 10.0.0.1 10.0.0.2 gre 1234 -P out none;", 1),
        ("spdadd 10.0.0.1[http] 10.0.0.2[any] 6 -P out none;", 1),
        ("spdadd -46n 1::/64 2::/64 ip4 -P fwd discard;", 1),
        ("add 1.2.3.4 1.2.3.5 esp-udp 9.9.9.9 0x1000 -E null;", 1),
        ("add 1.2.3.4 1.2.3.5 ah-old 0x1000 -A keyed-md5 \"1234567890123456\";", 1),
        ("add 1.2.3.4 1.2.3.5 ipcomp 0x1000 -C deflate -R;", 1),
        ("update 1.2.3.4 1.2.3.5 esp 0x1000 -f seq-pad -f zero-pad -E des-deriv 0x0011223344556677;", 1),
        ("deleteall 1.2.3.4 1.2.3.5 esp; spdupdate ::/0 ::/0 any -P out prio low - 7 none;", 2),
    ] {
        assert_eq!(actions(text).len(), commands, "{text}");
    }
}

#[test]
fn values_may_stand_behind_their_option() {
    for (glued, apart) in [
        (
            "-mtransport -u4 -r8 -lh100 -ls50 -fzero-pad -Enull -Anull",
            "-m transport -u 4 -r 8 -lh 100 -ls 50 -f zero-pad -E null -A null",
        ),
        (
            "-bh5 -bs4 -uh3 -us2 -ph9 -ps8 -ctx1 1 \"x\" -Enull",
            "-bh 5 -bs 4 -uh 3 -us 2 -ph 9 -ps 8 -ctx 1 1 \"x\" -E null",
        ),
    ] {
        let text = |options| format!("add 1.2.3.4 1.2.3.5 esp 4096 {options};");
        assert_eq!(hex(&message(&actions(&text(glued))[0])), hex(&message(&actions(&text(apart))[0])), "{glued}");
    }
    let policies = |text: &str| actions(text).iter().map(|action| hex(&message(action))).collect::<Vec<_>>();
    assert_eq!(
        policies("spdadd -4n1.0.0.0/8 2.0.0.0/8 any -lh7 -Pin none;"),
        policies("spdadd -4n 1.0.0.0/8 2.0.0.0/8 any -lh 7 -P in none;")
    );
    assert_eq!(
        hex(&message(&actions("add 1.2.3.4 1.2.3.5 ipcomp 9 -Cdeflate;")[0])),
        hex(&message(&actions("add 1.2.3.4 1.2.3.5 ipcomp 9 -C deflate;")[0]))
    );
}

#[test]
fn what_the_key_engine_refuses_is_no_error_of_the_text() {
    for (text, warning) in [
        ("add 1.2.3.4 1.2.3.5 4096 -E null;", "without esp, ah or ipcomp before it the key engine refuses this"),
        ("get 1.2.3.4 1.2.3.5 0x1000;", "without esp, ah or ipcomp before it the key engine refuses this"),
        ("spdadd tagged \"x\" -P out none;", "Linux has no policies for PF tags: the key engine refuses it"),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 any -P out bypass;",
            "entrust and bypass are for sockets: the key engine refuses them in the SPD",
        ),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 any -P out entrust;",
            "entrust and bypass are for sockets: the key engine refuses them in the SPD",
        ),
    ] {
        let parsed = parse(text.as_bytes(), false);
        let warnings: Vec<_> = parsed.warnings.iter().map(|warning| warning.text.as_str()).collect();
        assert_eq!(
            (parsed.errors.as_slice(), warnings.as_slice(), parsed.commands.len()),
            (&[][..], &[warning][..], 1),
            "{text}"
        );
    }
    assert!(matches!(actions("deleteall 1.2.3.4 1.2.3.5;")[0], Action::DeleteAll(SaType::UNSPEC, ..)));
}

#[test]
fn what_setkey_passes_over_in_silence() {
    let warned = |text: &str| {
        let parsed = parse(text.as_bytes(), true);
        assert_eq!(parsed.errors, []);
        parsed.warnings.into_iter().map(|warning| format!("{}: {}", warning.at, warning.text)).collect::<Vec<_>>()
    };
    for (text, warnings) in [
        (
            "add 192.0.2 192.0.2.010 esp 4096 -E null;",
            &["4: '192.0.2' is read as 192.0.0.2", "12: '192.0.2.010' is read as 192.0.2.8"][..],
        ),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 any -P out prio high + 5 ipsec esp/tunnel/10.1-1.2.3.4/unique:7;",
            &["69: '10.1' is read as 10.0.0.1"],
        ),
        (
            "add 1.2.3.4 1.2.3.5 esp 4096 -lh 10 -ls 11 -bs 5 -ph 7 -ps 8 -uh 3 -us 3 -E null;",
            &[
                "24: the soft limit of 11 seconds is above the hard one of 10: the SA ends without notice",
                "24: the soft limit of 8 packets is above the hard one of 7: the SA ends without notice",
            ],
        ),
        (
            "spdadd 1.0.0.0/8 2.0.0.0/8 any -P out ipsec;",
            &["34: ipsec without a request: these packets pass in clear, as with none"],
        ),
        ("spddelete 1.0.0.0/8 2.0.0.0/8 any -P out ipsec;", &[]),
        (
            "add 1.2.3.4 1.2.3.5 esp 4096 -E null;\nadd 1.2.3.9 1.2.3.5 esp 0x1000 -E null;",
            &["38: this SPI has its SA already, by line 1, column 1"],
        ),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -E null; flush esp; add 1.2.3.4 1.2.3.5 esp 4096 -E null;", &[]),
        ("add 1.2.3.4 1.2.3.5 esp 4096 -E null; add 1.2.3.4 1.2.3.6 esp 4096 -E null;", &[]),
    ] {
        assert_eq!(warned(text), warnings, "{text}");
    }
}

#[test]
fn a_sas_selector_label_and_limits() {
    let text = "add 1.2.3.4 1.2.3.5 esp 4096 -proxy 10.0.0.0/8 -ctx 1 1 \"a:b\" -uh 5 -ps 6 -E null;";
    match actions(text).remove(0) {
        Action::Add(sa) => {
            assert_eq!(sa.proxy, Some(("10.0.0.0:0".parse().unwrap(), 8)));
            assert_eq!(sa.attached.context.unwrap().text, b"a:b\0");
            assert_eq!((sa.hard.usetime, sa.soft.allocations), (5, 6));
        }
        _ => panic!(),
    }
}

/// A label that looks like options: what `save` writes of it reads as the same SA.
#[test]
fn a_label_that_looks_like_an_option_is_shown_as_it_is() {
    let add = actions("add 1.2.3.4 1.2.3.5 esp 4096 -ctx 1 1 \"u -A null:r\" -E null;").remove(0);
    let bytes = message(&add);
    let parsed = Message::parse(&bytes, Profile::Linux).unwrap();
    let entry = SaEntry { state: 1, ..SaEntry::of(&parsed).unwrap() };
    let command = entry.command().unwrap();
    assert_eq!(hex(&message(&actions(&command)[0])), hex(&bytes), "{}", *command);
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_commands_or_complaints(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let parsed = parse(&text, false);
        let lines = Lines::new(&text);
        for error in parsed.errors {
            lines.locate(error.at);
        }
    }

    #[test]
    fn any_words_give_commands_or_complaints(words in proptest::collection::vec(proptest::sample::select(vec![
        "add", "-n", "1.2.3.4", "::1", "esp", "ah", "esp-udp", "0x1000", "-E", "-A", "-C", "-m", "tunnel", "aes-cbc",
        "\"", "0x00", "null", ";", "[", "]", "/", "24", "spdadd", "-P", "out", "in", "ipsec", "esp/transport//require",
        "any", "icmp6", "1,2", "-ctx", "#", "\n", "deflate", "-f", "-lh",
    ]), 0..30)) {
        let _ = parse(words.join(" ").as_bytes(), false);
    }
}
