//! Everything that `pfkey --json` prints, held to docs/pfkey.schema.json.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/python.rs"]
mod python;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::Stdio;

use daemon::Daemon;
use serde_json::Value;

/// Everything that an SA and a policy can have here.
const FILE: &str = r#"
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -u 7 -r 32 -lh 3600 -ls 3000 -bh 1000000 -bs 900000 -f noecn
    -X if_id=7 -X mark=0x1/0xff -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 192.0.2.1[4500] 198.51.100.2[1024] esp-udp 0x1003 -m tunnel -E null;
add 192.0.2.1 198.51.100.2 ipcomp 0x100 -C deflate;
add 192.0.2.1 198.51.100.2 esp 0x1004 -proxy 10.1.0.0/16 -E aes-ctr 0x00112233445566778899aabbccddeeff00000001;
add 2001:db8::1 2001:db8::2 ah 0x1002 -uh 60 -us 50 -ph 9 -ps 8 -A hmac-md5 "1234567890123456";
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out prio high + 5 ipsec esp/tunnel/192.0.2.1-198.51.100.2/unique:7;
spdadd -k 10.1.0.0/24[80] 10.0.0.0/24[any] tcp -X if_id=9 -P in discard;
spdadd ::/0 ::/0 icmp6 135,0 -P in none;
spdadd 10.2.0.0/24 10.0.0.0/24 gre 70000 -lh 1000 -uh 500 -P out prio low - 3 discard;
spdadd 10.3.0.1 10.3.0.2 any -P out ipsec esp/transport//use ah/tunnel/192.0.2.1[4500]-198.51.100.2[4501]/unique:9;
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn schema() -> String {
    std::fs::read_to_string(c::root().join("docs/pfkey.schema.json")).unwrap()
}

/// What some messages look like.
fn heard(daemon: &Daemon) -> String {
    let mut monitor = daemon.pfkey(&["--json", "monitor", "--count", "20"]).stdout(Stdio::piped()).spawn().unwrap();
    // It may not listen yet: events go on until it has heard enough.
    while monitor.try_wait().unwrap().is_none() {
        daemon.ok(&["add", "1.2.3.4", "1.2.3.5", "esp", "4096", "-lh", "100", "-E", "null"]);
        daemon.ok(&["delete", "1.2.3.4", "1.2.3.5", "esp", "4096"]);
        daemon.run(&["delete", "1.2.3.4", "1.2.3.5", "esp", "4096"]);
        daemon.ok(&["policy", "add", "10.0.0.0/8", "11.0.0.0/8", "any", "-P", "out", "none"]);
        daemon.ok(&["policy", "delete", "10.0.0.0/8", "11.0.0.0/8", "any", "-P", "out"]);
        daemon.ok(&["algorithms"]);
    }
    let mut text = String::new();
    monitor.stdout.unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Every subcommand that has JSON, by another implementation of JSON Schema.
#[test]
fn every_output_is_as_the_schema_says() {
    const PROGRAM: &str = "
import json, sys
from jsonschema import Draft202012Validator as Validator
schema, *texts = sys.stdin.read().splitlines()
schema = json.loads(schema)
Validator.check_schema(schema)
kinds = set()
for text in texts:
    text = json.loads(text)
    fits = [name['$ref'] for name in schema['oneOf'] if Validator({**schema, 'oneOf': [name]}).is_valid(text)]
    if len(fits) != 1:
        alone = {k: v for k, v in text.items()}
        errors = [e.message for e in sorted(Validator(schema).iter_errors(text), key=str)]
        deeper = [c.message for e in Validator(schema).iter_errors(text) for c in e.context]
        sys.exit(f'{fits}: {alone}: {errors} {deeper}')
    kinds.add(fits[0].rsplit('/', 1)[1])
# A text that is none is refused.
assert not Validator(schema).is_valid({'schema': 1, 'sas': [{'spi': '0x1'}]})
assert not Validator(schema).is_valid({'schema': 2, 'sas': []})
print(*sorted(kinds))
";
    let Some(python) = python::with("jsonschema", "python3-jsonschema") else { return };
    let daemon = Daemon::holding("json_schema", FILE);
    let mut texts = vec![json(&schema()).to_string()];
    for arguments in [
        &["dump"][..],
        &["dump", "--show-keys"],
        &["dump", "ah"],
        &["get", "192.0.2.1", "198.51.100.2", "esp", "0x1003"],
        &["spd"],
        &["policy", "get", "1"],
        &["algorithms"],
        &["types"],
        &["types", "--profile", "klips"],
        &["types", "--diff"],
        &["types", "--profile", "rfc2367", "--diff"],
        &["doctor"],
        &["doctor", "/bin/sh"],
        &["explain", "10.0.0.7", "10.1.0.9"],
        &["explain", "10.3.0.1", "10.3.0.2"],
        &["explain", "10.9.0.1", "10.9.0.2"],
        &["graph"],
        &["top", "--once", "--interval", "0.1"],
    ] {
        let printed = daemon.ok(&[&["--json"], arguments].concat());
        assert!(!printed.is_empty(), "{arguments:?}");
        texts.extend(printed.lines().map(str::to_owned));
    }
    texts.extend(heard(&daemon).lines().map(str::to_owned));
    daemon.ok(&["flush"]);
    texts.push(daemon.ok(&["--json", "dump"]));
    let kinds = python.run(PROGRAM, &texts.iter().map(|text| text.trim().to_owned() + "\n").collect::<String>());
    let expected = "algorithms edges explanations findings group live_sa message policies sas total types\n";
    assert_eq!(kinds, expected);
}

/// What the schema promises is there, and typed.
#[test]
fn numbers_are_numbers_and_requests_are_objects() {
    let daemon = Daemon::holding("json_typed", FILE);
    let policies = json(&daemon.ok(&["--json", "spd"]));
    let policies = policies["policies"].as_array().unwrap();
    let find =
        |source: &str| policies.iter().find(|policy| policy["source"] == source).unwrap_or_else(|| panic!("{source}"));
    let tunnel = find("10.0.0.0/24");
    assert_eq!(tunnel["priority"], 0x4000_0000_u32 - 5);
    let request = json(
        r#"{"protocol":"esp","mode":"tunnel","level":"unique","reqid":7,"source":"192.0.2.1","destination":"198.51.100.2"}"#,
    );
    assert_eq!(tunnel["requests"], Value::Array(vec![request]));
    assert_eq!((&find("10.1.0.0/24")["source_port"], &find("10.1.0.0/24")["if_id"]), (&80.into(), &9.into()));
    assert_eq!((&find("::/0")["upper"], &find("::/0")["upper_type"]), (&"icmp6".into(), &135.into()));
    assert_eq!(find("10.2.0.0/24")["gre_key"], 70000);
    assert_eq!(find("10.3.0.1/32")["requests"][1]["protocol"], "ah");
    let sas = json(&daemon.ok(&["--json", "dump", "esp"]));
    let sas = sas["sas"].as_array().unwrap();
    let sa = sas.iter().find(|sa| sa["spi"] == 0x1001).unwrap();
    assert_eq!((&sa["mark"]["mask"], &sa["if_id"], &sa["hard_bytes"]), (&255.into(), &7.into(), &1_000_000.into()));
    let udp = sas.iter().find(|sa| sa["protocol"] == "esp-udp").unwrap();
    assert_eq!((&udp["source"], &udp["source_port"]), (&"192.0.2.1".into(), &4500.into()));
    // People read the same as before.
    assert!(daemon.ok(&["dump"]).contains(" source=192.0.2.1[4500] "));
    let listed = daemon.ok(&["spd"]);
    assert!(
        listed.contains(" priority=\"prio high + 5\" requests=esp/tunnel/192.0.2.1-198.51.100.2/unique:7 "),
        "{listed}"
    );
}

/// The manual's and the schema's words about what there is.
#[test]
fn every_listing_is_in_the_schema() {
    let schema = json(&schema());
    let named: BTreeSet<&str> =
        schema["oneOf"].as_array().unwrap().iter().map(|one| one["$ref"].as_str().unwrap()).collect();
    let defined = schema["$defs"].as_object().unwrap();
    assert!(named.iter().all(|name| defined.contains_key(name.trim_start_matches("#/$defs/"))), "{named:?}");
    assert_eq!(defined["schema"]["const"], 1);
}
