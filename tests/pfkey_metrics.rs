//! `pfkey metrics`: what it says, that others can read it, and that nobody keeps its server from answering.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/python.rs"]
mod python;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::Daemon;

/// A tunnel both ways, of which one way has no SA, and what has none at all.
const FILE: &str = r#"
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -lh 3600 -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 192.0.2.1 198.51.100.2 esp 0x1002 -m tunnel -lh 600 -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 2001:db8::1 2001:db8::2 ah 0x1003 -u 7 -A hmac-md5 "1234567890123456";
add 192.0.2.1 198.51.100.2 ipcomp 0x100 -C deflate;
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd -k 10.1.0.0/24 10.0.0.0/24 any -P in ipsec esp/tunnel/198.51.100.2-192.0.2.1/require;
spdadd 10.2.0.0/24 10.0.0.0/24[80] tcp -P out discard;
"#;

/// The samples of a text, by name and labels as they are written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let sample = |line: &&str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    let samples: BTreeMap<_, _> = lines.iter().map(sample).collect();
    assert_eq!(samples.len(), lines.len(), "no sample is there twice: {text}");
    samples
}

#[test]
fn what_there_is() {
    let daemon = Daemon::holding("metrics_values", FILE);
    let text = daemon.ok(&["metrics", "--per-sa"]);
    assert!(!text.contains("112233") && !text.contains("3132333435"), "no key: {text}");
    let found = samples(&text);
    let out = "direction=\"out\",source=\"10.0.0.0/24\",destination=\"10.1.0.0/24\"}";
    let with = |start: &str, end: &str| -> Vec<f64> {
        found.iter().filter(|(name, _)| name.starts_with(start) && name.ends_with(end)).map(|(_, n)| *n).collect()
    };
    for (name, value) in [
        (
            r#"pfkey_sas{protocol="esp",mode="tunnel",state="mature",encryption="aes-cbc",authentication="hmac-sha1"}"#,
            2.0,
        ),
        (r#"pfkey_sas{protocol="ah",mode="transport",state="mature",authentication="hmac-md5"}"#, 1.0),
        (r#"pfkey_sas{protocol="ipcomp",mode="transport",state="mature",compression="deflate"}"#, 1.0),
        ("pfkey_acquires_waiting", 0.0),
        (r#"pfkey_policies{direction="in",action="ipsec"}"#, 1.0),
        (r#"pfkey_policies{direction="out",action="discard"}"#, 1.0),
        (r#"pfkey_policies_without_sa{direction="in"}"#, 1.0),
        (r#"pfkey_policies_without_sa{direction="out"}"#, 0.0),
        ("pfkey_policies_unlisted", 0.0),
        ("pfkey_sas_unlisted", 0.0),
        (
            r#"pfkey_sa_bytes_total{protocol="ah",source="2001:db8::1",destination="2001:db8::2",spi="0x00001003",reqid="7"}"#,
            0.0,
        ),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:#?}");
    }
    assert_eq!(with("pfkey_policy_sas{", out), [2.0]);
    assert_eq!(with("pfkey_policy_sa_bytes{", out), [0.0]);
    let left = with("pfkey_policy_sa_left_seconds{", out);
    assert!(matches!(left.as_slice(), [570.0..=600.0]), "the least counts: {left:?}");
    assert!(!found.keys().any(|name| name.starts_with("pfkey_events")), "nobody listened");
}

/// The kernel's counters by their own names, where it has them.
#[test]
fn the_kernels_counters() {
    let Ok(kernels) = std::fs::read_to_string("/proc/net/xfrm_stat") else {
        println!("skipped: this kernel has no /proc/net/xfrm_stat");
        return;
    };
    let daemon = Daemon::holding("metrics_counters", FILE);
    let found = samples(&daemon.ok(&["metrics"]));
    assert!(kernels.lines().count() > 10, "{kernels}");
    for name in kernels.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(found.contains_key(&format!("pfkey_xfrm_stat_total{{counter=\"{name}\"}}")), "{name}: {found:#?}");
    }
}

#[test]
fn single_numbers_are_bounded() {
    let daemon = Daemon::holding("metrics_bounds", FILE);
    let text = daemon.ok(&["metrics"]);
    assert!(!text.contains("spi="), "{text}");
    let found = samples(&daemon.ok(&["metrics", "--per-sa", "--most", "1"]));
    let count = |start: &str| found.keys().filter(|name| name.starts_with(start)).count();
    assert_eq!((count("pfkey_policy_sas{"), count("pfkey_sa_bytes_total{")), (1, 1));
    assert_eq!((found["pfkey_policies_unlisted"], found["pfkey_sas_unlisted"]), (1.0, 3.0));
}

/// The parser of the Prometheus project's own client.
#[test]
fn another_parser_reads_it() {
    const PROGRAM: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as older
text = sys.stdin.read()
for family in openmetrics(text):
    for sample in family.samples:
        print(family.type, family.unit, sample.name, sorted(sample.labels.items()), float(sample.value))
assert sum(len(family.samples) for family in older(text)) == sum(len(family.samples) for family in openmetrics(text))
";
    let Some(python) = python::with("prometheus_client.openmetrics.parser", "python3-prometheus-client") else {
        return;
    };
    let daemon = Daemon::holding("metrics_parser", FILE);
    let text = daemon.ok(&["metrics", "--per-sa"]);
    let read = python.run(PROGRAM, &text);
    assert_eq!(read.lines().count(), samples(&text).len(), "{read}");
    let labels = "[('action', 'discard'), ('direction', 'out')]";
    assert!(read.contains(&format!("gauge  pfkey_policies {labels} 1.0\n")), "{read}");
    assert!(read.contains("counter bytes pfkey_sa_bytes_total "), "{read}");
}

/// What the machine's pfkeyd says of itself, by the same parser.
#[test]
fn the_machines_pfkeyd() {
    const PROGRAM: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
for family in openmetrics(sys.stdin.read()):
    for sample in family.samples:
        if sample.name.startswith('pfkey_service_') and sample.name != 'pfkey_service_build':
            print(family.type, family.unit, sample.name, float(sample.value))
";
    if !nix::unistd::geteuid().is_root() || std::fs::metadata("/proc/net/xfrm_stat").is_err() {
        return println!("skipped: it needs root and XFRM");
    }
    if !c::has_xfrm() {
        return;
    }
    if !Command::new("unshare").args(["-mn", "true"]).status().is_ok_and(|status| status.success()) {
        return println!("skipped: no mount namespace, as in a chroot whose root is no mount point");
    }
    let script = "set -e
        mount --make-rprivate /; mount -t tmpfs none /run; mkfifo /run/ready
        pfkeyd --status 3 --service 3>/run/ready 2>/dev/null & service=$!
        head -c 4 /run/ready >/run/status
        PFKEY_BACKEND=service pfkey metrics
        kill $service; wait $service";
    let programs = std::path::Path::new(c::program("pfkeyd")).parent().unwrap();
    c::program("pfkey");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    let output = command.args(["60", "unshare", "-mn", "sh", "-c", script]).env("PATH", path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = samples(&text);
    let service = |name: &str| found.get(&format!("pfkey_service_{name}")).copied();
    assert_eq!(service("up"), Some(1.0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for counter in ["dropped_messages", "refused_clients", "replaced_workers", "restarts"] {
        assert_eq!(service(&format!("{counter}_total")), Some(0.0), "{counter}: {text}");
    }
    // The one that asks.
    assert_eq!(service("sessions"), Some(1.0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(service("start_time_seconds").is_some_and(|since| (now - 60.0..=now).contains(&since)), "{text}");
    let Some(python) = python::with("prometheus_client.openmetrics.parser", "python3-prometheus-client") else {
        return;
    };
    let read = python.run(PROGRAM, &text);
    assert!(read.contains("counter  pfkey_service_dropped_messages_total 0.0\n"), "{read}");
    assert!(read.contains("gauge seconds pfkey_service_start_time_seconds "), "{read}");
    assert_eq!(read.lines().count(), 7, "{read}");
}

#[test]
fn a_collectors_file_is_whole_and_for_all() {
    let daemon = Daemon::holding("metrics_file", FILE);
    let path = c::scratch("metrics_file_out").join("pfkey.prom");
    for _ in 0..2 {
        assert_eq!(daemon.ok(&["metrics", "--output", path.to_str().unwrap()]), "");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# TYPE pfkey_sas gauge\n") && text.ends_with("\n# EOF\n"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    }
    let beside: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().starts_with("pfkey.prom.")), "{beside:?}");
    // What stood there stays if there is nothing to say.
    let failed = daemon.pfkey(&["metrics", "--output", path.to_str().unwrap()]);
    let failed = { failed }.env("PFKEY_BACKEND", "unix:/nonexistent").output().unwrap();
    assert_eq!(failed.status.code(), Some(3));
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("# EOF\n"));
}

#[test]
fn there_is_no_json_of_it() {
    let daemon = Daemon::holding("metrics_json", FILE);
    let output = daemon.run(&["--json", "metrics"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

/// A server, ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(daemon: &Daemon) -> Self {
        let mut child = daemon.pfkey(&["metrics", "--listen", "0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("pfkey: http://").and_then(|rest| rest.strip_suffix("/metrics"));
        let address = address.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn scrape(&self) -> BTreeMap<String, f64> {
        let answer = self.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        samples(body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_server_listens_to_the_key_engine() {
    let daemon = Daemon::holding("metrics_events", FILE);
    let server = Server::start(&daemon);
    assert_eq!(server.ask("GET /x HTTP/1.1\r\n\r\n").lines().next(), Some("HTTP/1.1 404 Not Found"));
    assert_eq!(server.scrape()[r#"pfkey_events_total{event="hard-expire"}"#], 0.0);
    daemon.ok(&["add", "192.0.2.1", "198.51.100.2", "esp", "0x9999", "-lh", "5", "-ls", "1", "-E", "null"]);
    let (soft, hard) = (r#"pfkey_events_total{event="soft-expire"}"#, r#"pfkey_events_total{event="hard-expire"}"#);
    let began = Instant::now();
    // The limits are the events.
    let last = loop {
        let found = server.scrape();
        if found[hard] > 0.0 || began.elapsed() > Duration::from_secs(60) {
            break found;
        }
    };
    assert_eq!((last[soft], last[hard]), (1.0, 1.0));
}

#[test]
fn nobody_keeps_the_server_from_answering() {
    let daemon = Daemon::holding("metrics_clients", FILE);
    let server = Server::start(&daemon);
    // More than it holds, of which none says a whole request.
    let slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert!(server.scrape().len() > 10);
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for others");
    // The first ones were ended by those behind them.
    let mut first = slow.into_iter().next().unwrap();
    let end = first.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_request_without_an_end_is_refused() {
    let daemon = Daemon::holding("metrics_long", FILE);
    let server = Server::start(&daemon);
    let answer = server.ask(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // Who says nothing more has said nothing.
    let mut silent = server.connect();
    silent.write_all(b"GET /metrics").unwrap();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
}
