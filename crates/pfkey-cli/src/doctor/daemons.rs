//! What the daemons that speak PF_KEY need, and what of it a trial found.

use super::Findings;
use super::modules::{Modules, State, of_case};
use super::trial::Trial;

/// Something that daemons need: its name, and the cases of a trial that it is.
struct Need {
    shown: &'static str,
    cases: &'static [&'static str],
    /// Nothing can be done without it.
    vital: bool,
}

const fn need(shown: &'static str, cases: &'static [&'static str]) -> Need {
    Need { shown, cases, vital: false }
}

const ESP: Need = Need { vital: true, ..need("ESP", &["ESP transport IPv4", "ESP tunnel IPv4"]) };
const ESP6: Need = need("ESP over IPv6", &["ESP transport IPv6", "ESP tunnel IPv6"]);
const AH: Need = need("AH", &["AH transport IPv4", "AH tunnel IPv4"]);
const AH6: Need = need("AH over IPv6", &["AH transport IPv6", "AH tunnel IPv6"]);
const IPCOMP: Need = need("IPComp", &["IPComp transport IPv4", "IPComp tunnel IPv4"]);
const IPCOMP6: Need = need("IPComp over IPv6", &["IPComp transport IPv6", "IPComp tunnel IPv6"]);
const NAT: Need = need("NAT traversal", &["NAT traversal"]);
const POLICIES: Need = Need { vital: true, ..need("policies", &["policies IPv4"]) };
const POLICIES6: Need = need("policies over IPv6", &["policies IPv6"]);
const AES: Need = need("aes-cbc", &["aes-cbc"]);
const DES3: Need = need("3des-cbc", &["3des-cbc"]);
const SHA1: Need = need("hmac-sha1", &["hmac-sha1"]);
const SHA256: Need = need("hmac-sha256", &["hmac-sha256"]);

/// A daemon: its name, what it does where a pfkeyd serves it, and what it can ask for.
struct Daemon {
    name: &'static str,
    way: &'static str,
    needs: &'static [Need],
}

/// What each of them can propose: `docs/migration.md` has what was tried with it.
const DAEMONS: [Daemon; 5] = [
    Daemon {
        name: "racoon",
        way: "works through libipsec.so.0",
        needs: &[ESP, ESP6, AH, AH6, IPCOMP, IPCOMP6, NAT, POLICIES, POLICIES6, AES, DES3, SHA1, SHA256],
    },
    Daemon {
        name: "iked",
        way: "works under pfkey-run",
        // Over AF_KEY it leaves SHA2-256 out.
        needs: &[ESP, ESP6, AH, AH6, NAT, POLICIES, POLICIES6, AES, SHA1],
    },
    Daemon {
        name: "strongSwan",
        way: "kernel-pfkey works under pfkey-run (kernel-netlink needs nothing of this)",
        needs: &[ESP, ESP6, AH, AH6, IPCOMP, IPCOMP6, NAT, POLICIES, POLICIES6, AES, SHA1, SHA256],
    },
    Daemon {
        name: "isakmpd",
        way: "works under pfkey-run",
        needs: &[ESP, ESP6, AH, AH6, NAT, POLICIES, POLICIES6, AES, DES3, SHA1],
    },
    Daemon {
        name: "setkey",
        way: "scripts work: pfkey called setkey, or ipsec-tools' own through libipsec.so.0",
        needs: &[ESP, ESP6, AH, AH6, IPCOMP, IPCOMP6, POLICIES, POLICIES6, AES, SHA1],
    },
];

/// Something that is missing.
#[derive(Clone, PartialEq, Eq)]
pub struct Lack {
    /// What.
    pub shown: &'static str,
    /// What to do, or why it is refused.
    pub remedy: String,
}

/// So many lacks are told with what to do about them.
const FEW: usize = 2;

/// What is missing; `None` if nothing is.
fn lack(need: &Need, trial: &Trial, modules: &Modules) -> Option<Lack> {
    let refused = need.cases.iter().find_map(|case| match trial.results.get(*case) {
        Some(Err(refusal)) => Some((*case, refusal.why.as_str())),
        Some(Ok(())) => None,
        None => Some((*case, "not tried")),
    });
    let (case, why) = refused?;
    let remedy = match of_case(case).map(|part| (modules.state(part), part)) {
        Some((State::BuiltIn | State::Loaded, part)) => format!("{why}, though {}", modules.remedy(part)),
        Some((_, part)) => modules.remedy(part),
        None => why.to_owned(),
    };
    Some(Lack { shown: need.shown, remedy })
}

/// Every daemon, a line each. Says what any of them lacks, each lack once, and whether any can work.
pub fn judge(trial: &Trial, modules: &Modules, findings: &mut Findings) -> (Vec<Lack>, bool) {
    let (mut all, mut any_works): (Vec<Lack>, _) = (Vec::new(), false);
    for Daemon { name, way, needs } in &DAEMONS {
        let way = if trial.af_key { "works as it is, over AF_KEY" } else { way };
        let mut lacks: Vec<Lack> = Vec::new();
        let mut works = true;
        for need in *needs {
            let Some(lack) = lack(need, trial, modules) else { continue };
            works &= !need.vital;
            // It is the same part of the kernel that is missing: once is enough.
            if !lacks.iter().any(|other| other.remedy == lack.remedy) {
                lacks.push(lack);
            }
        }
        let told = match lacks.len() {
            0 => String::new(),
            1..=FEW => lacks.iter().map(|Lack { shown, remedy }| format!("; {shown} missing: {remedy}")).collect(),
            _ => format!("; missing: {}", names(&lacks)),
        };
        let found = match (works, lacks.is_empty()) {
            (true, true) => "ok",
            (true, false) => "partly",
            (false, _) => "missing",
        };
        findings.add(name, found, format!("{}{told}", if works { way } else { "does not work" }));
        any_works |= works;
        for lack in lacks {
            if !all.contains(&lack) {
                all.push(lack);
            }
        }
    }
    (all, any_works)
}

/// What lacks are of.
pub fn names(lacks: &[Lack]) -> String {
    let both = |shown: &str| lacks.iter().any(|other| shown.strip_suffix(" over IPv6") == Some(other.shown));
    let shown = lacks.iter().map(|lack| lack.shown).filter(|shown| !both(shown));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::trial::Refusal;
    use super::*;

    fn trial(refused: &[&str]) -> Trial {
        let result = |name: &str| match refused.iter().any(|one| name.starts_with(one)) {
            true => Err(Refusal { why: "Protocol not supported".to_owned() }),
            false => Ok(()),
        };
        let cases = cases::all(&std::collections::BTreeSet::new(), true).into_iter();
        let results = cases.map(|case| (case.name.clone(), result(&case.name))).collect();
        Trial { as_root_of_its_own: false, af_key: false, results }
    }

    fn judged(refused: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut findings = Findings::default();
        let (lacks, _) = judge(&trial(refused), &Modules::of_test(), &mut findings);
        let line = |record: &crate::output::Record| {
            let values: Vec<String> = record.iter().map(|(_, value)| value.to_plain()).collect();
            values.join(" ")
        };
        let lacks = lacks.iter().map(|Lack { shown, remedy }| format!("{shown}: {remedy}"));
        (lacks.collect(), findings.0.iter().map(line).collect())
    }

    #[test]
    fn nothing_is_missing() {
        let (lacks, lines) = judged(&[]);
        assert!(lacks.is_empty());
        assert_eq!(lines[0], "racoon ok works through libipsec.so.0");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn who_needs_it_is_told() {
        let (lacks, lines) = judged(&["IPComp transport IPv4", "IPComp tunnel IPv4"]);
        assert_eq!(lacks, ["IPComp: CONFIG_INET_IPCOMP, modprobe ipcomp"]);
        assert_eq!(
            lines[0],
            "racoon partly works through libipsec.so.0; IPComp missing: CONFIG_INET_IPCOMP, modprobe ipcomp"
        );
        assert_eq!(lines[1], "iked ok works under pfkey-run");
    }

    #[test]
    fn no_daemon_does_without_esp() {
        let (_, lines) = judged(&["ESP tunnel IPv4"]);
        let refused = "does not work; ESP missing: Protocol not supported, though esp4 is loaded";
        assert!(lines.iter().all(|line| line.ends_with(refused)), "{lines:?}");
    }

    #[test]
    fn many_lacks_are_names() {
        let (lacks, lines) = judged(&["AH", "IPComp"]);
        assert_eq!(lacks.len(), 4);
        assert_eq!(lines[0], "racoon partly works through libipsec.so.0; missing: AH, IPComp");
    }

    #[test]
    fn what_nobody_proposes_is_no_lack() {
        assert!(judged(&["cast128", "blowfish", "ESP beet"]).0.is_empty());
    }
}
