//! `explain`: which policy and SAs an outbound packet takes, what MTU is left, or why it is dropped.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pfkey_engine::resolve::explain::{Explanation, Step, Verdict};
use pfkey_engine::{Engine, Flow, LINUX};
use pfkey_model::policy::Policy;
use pfkey_model::sa::{Sa, State};
use pfkey_model::view::{PolicyView, SaView};
use pfkey_socket::{Backend, extras};
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Ends, Extras, IpsecProtocol, MessageType, Prefix, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::load;
use crate::model::names;
use crate::model::xfrm::{interface_number, parse_u32};
use crate::output::{Format, Out, Record, Value, View, show};

/// Smallest MTU of a path (RFC 791).
const LEAST_MTU: u32 = 68;

/// What is to be explained, and where SAs and policies are found.
pub struct Options<'a> {
    /// SRC DST, protocol, ports.
    pub words: &'a [String],
    /// A file of `load`'s language instead of what is live.
    pub file: Option<&'a Path>,
    /// MTU of the path in bytes.
    pub mtu: u32,
}

/// Explains a packet.
pub fn explain(view: View, options: &Options<'_>) -> Result<(), Failure> {
    let flow = flow(options.words).map_err(|why| Failure::Usage(format!("explain: {why}")))?;
    if options.mtu < LEAST_MTU {
        return Err(Failure::Usage(format!("explain: --mtu {}: less than {LEAST_MTU}", options.mtu)));
    }
    let mut channel = match options.file {
        None => Channel::open()?,
        Some(path) => {
            // Whatever the file holds can be explained; how long SHA2-256 is, it does not say.
            let asked = extras()?;
            pfkey_socket::set_extras(Some(Extras { aead: true, ..asked }));
            let mut channel = Channel::open_with(&Backend::Copy)?;
            load::into(&mut channel, view, path)?;
            channel
        }
    };
    let engine = live(&mut channel)?;
    let explanation = engine.explain(&flow, options.mtu);
    let mut out = Out::new();
    if view.format == Format::Json {
        let records: Vec<_> = [record(&explanation, &engine)].into_iter().collect();
        show(&mut out, view, "explanations", &[], &records)?;
    } else {
        text(&mut out, &explanation, &engine, options.mtu)?;
    }
    Ok(out.flush()?)
}

/// What becomes of a packet, by what is live, in lines.
pub fn lines(channel: &mut Channel, flow: &Flow, mtu: u32) -> Result<Vec<String>, Failure> {
    let engine = live(channel)?;
    let mut bytes = Vec::new();
    text(&mut bytes, &engine.explain(flow, mtu), &engine, mtu)?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// An engine with everything that a key engine tells of.
fn live(channel: &mut Channel) -> Result<Engine, Failure> {
    let mut engine = Engine::new(&LINUX);
    engine.set_extras(extras()?);
    let (mut sas, mut policies) = (Vec::new(), Vec::new());
    channel.dump(MessageType::DUMP, SaType::UNSPEC, |received| {
        sas.extend(received.message.as_ref().and_then(SaView::of_message).map(|view| Sa::from(&view)));
        Ok(())
    })?;
    channel.dump(MessageType::X_SPDDUMP, SaType::UNSPEC, |received| {
        policies.extend(received.message.as_ref().and_then(PolicyView::of_message).map(|view| Policy::from(&view)));
        Ok(())
    })?;
    // Dumps tell of the newest first.
    sas.into_iter().rev().for_each(|sa| engine.know_sa(sa));
    policies.into_iter().rev().for_each(|policy| engine.know_policy(policy));
    Ok(engine)
}

/// What follows the addresses.
const MORE: &str = "[PROTOCOL] [sport N] [dport N] [mark N] [if_id N] [dev NAME] [cpu N] [uid N]";

/// Reads `SRC [→] DST` and `MORE`, as arguments or as one.
pub fn flow(words: &[String]) -> Result<Flow, String> {
    let arrow = |word: &&str| !matches!(*word, "→" | "to");
    let mut words = words.iter().flat_map(|word| word.split_whitespace()).filter(arrow);
    let mut address = |which: &str| -> Result<IpAddr, String> {
        let word = words.next().ok_or_else(|| format!("no {which}: expected SRC → DST {MORE}"))?;
        word.parse().map_err(|_| format!("{which} {word:?}: not an address"))
    };
    let (src, dst) = (address("source")?, address("destination")?);
    let ends = Ends::new(src, dst).ok_or_else(|| format!("source {src} and destination {dst} are of two families"))?;
    let mut flow = Flow::new(ends, 0, 0, 0);
    let (mut first, mut uid) = (true, 0);
    while let Some(word) = words.next() {
        let field = match word {
            "mark" => Some(&mut flow.mark),
            "if_id" => Some(&mut flow.if_id),
            "cpu" => Some(&mut flow.cpu),
            "dev" => Some(&mut flow.device),
            // No policy and no SA looks at the user (`xfrm_selector.user` is kept and not compared); rules of routing do.
            "uid" => Some(&mut uid),
            _ => None,
        };
        if let Some(field) = field {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            *field = match word {
                "dev" => interface_number(value).ok_or_else(|| format!("dev {value:?}: no such network interface"))?,
                _ => parse_u32(value).ok_or_else(|| format!("{word} {value:?}: not a number of 32 bits"))?,
            };
            first = false;
            continue;
        }
        let port = match word {
            "sport" | "dport" => {
                let value = words.next().ok_or_else(|| format!("{word} needs a port"))?;
                let port = value.parse().ok().or_else(|| names::service(value));
                Some(port.ok_or_else(|| format!("{word} {value:?}: not a port"))?)
            }
            _ => None,
        };
        match (word, port) {
            ("sport", Some(port)) => flow.sport = port,
            (_, Some(port)) => flow.dport = port,
            _ if !first => return Err(format!("{word:?}: expected sport, dport, mark, if_id, dev, cpu or uid")),
            _ => {
                flow.proto = word.parse().ok().or_else(|| names::upper_number(word)).ok_or_else(|| {
                    let near = names::nearest(word, names::upper_names());
                    let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                    format!("protocol {word:?}: unknown{near}")
                })?;
            }
        }
        first = false;
    }
    // What the file language calls "any".
    if flow.proto == 255 {
        flow.proto = 0;
    }
    if flow.proto == 0 && (flow.sport, flow.dport) != (0, 0) {
        return Err("a port needs a protocol".to_owned());
    }
    Ok(flow)
}

/// How the outcome reads.
fn verdict(explanation: &Explanation<'_>) -> &'static str {
    match (explanation.verdict, explanation.policy.or(explanation.sub)) {
        (Verdict::Pass, None) => "passes as it is: no policy takes it",
        (Verdict::Pass, Some(policy)) if policy.templates.is_empty() => "passes as it is: the policy asks for nothing",
        (Verdict::Pass, Some(_)) => "passes as it is: the policy would use SAs, but can do without",
        (Verdict::Transform, _) => "goes out through these SAs",
        (Verdict::Wait, _) => "dropped, or held: an SA is missing. A registered key manager is asked for it by ACQUIRE",
        (Verdict::Discard, _) => "dropped: the policy discards it (EPERM)",
        (Verdict::TooManyTemplates, _) => "dropped: six SAs can be asked for, but not applied (ENOBUFS)",
    }
}

fn title(step: &Step) -> String {
    let protocol = names::satype(SaType::from_protocol(step.template.proto));
    let mode = names::mode(step.template.mode.0);
    let (src, dst) = (step.ends.src(), step.ends.dst());
    let reqid = if step.template.reqid == 0 { String::new() } else { format!("  reqid {}", step.template.reqid) };
    format!("{protocol}/{mode} {src} → {dst}{reqid}")
}

fn algorithms(sa: &Sa) -> String {
    if sa.proto == IpsecProtocol::IPCOMP {
        return names::shown(names::COMPRESS, sa.encrypt.0);
    }
    let encrypt = (sa.encrypt != EncryptAlgorithm::NONE).then(|| names::shown(names::ENCRYPT, sa.encrypt.0));
    let auth = (sa.auth != AuthAlgorithm::NONE).then(|| names::shown(names::AUTH, sa.auth.0));
    encrypt.into_iter().chain(auth).collect::<Vec<_>>().join(" ")
}

/// Seconds until time ends an SA.
fn left(sa: &Sa) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = |since: u64, seconds: u64| (seconds != 0 && since != 0).then(|| since.saturating_add(seconds));
    let ends = [end(sa.usage.add_time, sa.hard.add_seconds), end(sa.usage.use_time, sa.hard.use_seconds)];
    ends.into_iter().flatten().min().map(|end| end.saturating_sub(now))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn found<'e>(engine: &'e Engine, step: &Step) -> Option<&'e Sa> {
    engine.sadb().get(engine.sadb().find(step.chosen.as_ref().ok()?)?)
}

fn text(out: &mut dyn Write, explanation: &Explanation<'_>, engine: &Engine, path_mtu: u32) -> Result<(), Failure> {
    for policy in explanation.sub.into_iter().chain(explanation.policy) {
        let s = &policy.selector;
        let side = |prefix: Prefix, port| {
            let port = if port == 0 { String::new() } else { format!("[{port}]") };
            format!("{prefix}{port}")
        };
        let upper = if s.proto == 0 { String::new() } else { format!("  {}", names::upper(s.proto)) };
        let action = match (policy.block, policy.templates.is_empty()) {
            (true, _) => "discard",
            (false, true) => "none",
            (false, false) => "ipsec",
        };
        let (src, dst) = (side(s.src, s.sport), side(s.dst, s.dport));
        writeln!(
            out,
            "policy out{} id {} priority {:#010x}  {src} → {dst}{upper}  {action}",
            if policy.attached.xfrm.is_sub() { " (sub)" } else { "" },
            policy.id,
            policy.priority
        )?;
    }
    for step in &explanation.steps {
        write!(out, "├─ {}", title(step))?;
        match (step.chosen, found(engine, step)) {
            (Ok(said), Some(sa)) => {
                let which = match step.candidates {
                    1 => "the only one".to_owned(),
                    n => format!("newest of {n}"),
                };
                let left = left(sa).map_or(String::new(), |left| format!(", {} left", duration(left)));
                let dying = if sa.state == State::Dying { ", dying" } else { "" };
                let own = sa.attached.xfrm.pcpu().map_or(String::new(), |cpu| format!(", of processor {cpu}"));
                let asks = if step.asks { "; a key manager is asked for one of this processor" } else { "" };
                writeln!(out, "  spi {:#010x}  {}  ({which}{own}{dying}{left}{asks})", said.spi, algorithms(sa))?;
            }
            (chosen, _) => {
                let why = chosen.err().map_or(String::new(), |lack| lack.to_string());
                let level = if step.template.optional { ": left out, level use" } else { "" };
                writeln!(out, "  {why}{level}")?;
            }
        }
    }
    if explanation.verdict == Verdict::Transform && explanation.packs {
        writeln!(out, "└─ route  mtu {path_mtu}; IP-TFS packs several packets into one and splits them")?;
    } else if explanation.verdict == Verdict::Transform {
        let (least, most) = explanation.overhead;
        let overhead = if least == most { least.to_string() } else { format!("{least}..{most}") };
        writeln!(out, "└─ route  mtu {path_mtu} → {} for the packet, overhead {overhead} bytes", explanation.mtu)?;
    }
    Ok(writeln!(out, "{}", verdict(explanation))?)
}

/// What a template demands and what it gets, for programs.
fn step_record(step: &Step, engine: &Engine) -> Record {
    let text = |text: String| Value::Text(text);
    let mut record = vec![
        ("protocol", text(names::satype(SaType::from_protocol(step.template.proto)))),
        ("mode", text(names::mode(step.template.mode.0))),
        ("source", text(step.ends.src().to_string())),
        ("destination", text(step.ends.dst().to_string())),
        ("reqid", Value::Number(step.template.reqid.into())),
    ];
    match (step.chosen, found(engine, step)) {
        (Ok(said), Some(sa)) => {
            record.push(("spi", Value::Hex(said.spi)));
            record.push(("algorithms", text(algorithms(sa))));
        }
        (chosen, _) => {
            record.push(("lack", text(chosen.err().map_or_else(String::new, |lack| lack.to_string()))));
        }
    }
    record
}

fn record(explanation: &Explanation<'_>, engine: &Engine) -> Record {
    let mut record: Record = vec![
        (
            "verdict",
            Value::Text(
                match explanation.verdict {
                    Verdict::Pass => "pass",
                    Verdict::Transform => "transform",
                    Verdict::Wait => "wait",
                    Verdict::Discard => "discard",
                    Verdict::TooManyTemplates => "too-many-templates",
                }
                .to_owned(),
            ),
        ),
        ("why", Value::Text(verdict(explanation).to_owned())),
    ];
    if let Some(sub) = explanation.sub {
        record.push(("sub_policy", Value::Number(sub.id.into())));
    }
    if let Some(policy) = explanation.policy {
        record.push(("policy", Value::Number(policy.id.into())));
        record.push(("priority", Value::Number(policy.priority.into())));
    }
    let steps = explanation.steps.iter().map(|step| step_record(step, engine));
    record.push(("sas", Value::Records(steps.collect())));
    if !explanation.packs {
        record.push(("mtu", Value::Number(explanation.mtu.into())));
        record.push(("least_overhead", Value::Number(explanation.overhead.0.into())));
        record.push(("most_overhead", Value::Number(explanation.overhead.1.into())));
    }
    record
}
