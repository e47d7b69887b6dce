//! Which part of the kernel something needs, and whether it is there.

use std::path::Path;

/// A part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its option, without `CONFIG_`.
    pub config: &'static str,
    /// Its module.
    pub module: &'static str,
}

/// How a part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the kernel itself.
    BuiltIn,
    /// A module that is loaded.
    Loaded,
    /// A module that is not.
    Loadable,
    /// Neither.
    Absent,
    /// Nothing says so.
    Unknown,
}

const fn part(config: &'static str, module: &'static str) -> Part {
    Part { config, module }
}

/// What every backend but AF_KEY speaks.
pub const XFRM_USER: Part = part("XFRM_USER", "xfrm_user");
/// AF_KEY.
pub const AF_KEY: Part = part("NET_KEY", "af_key");
/// The protocols: their names in [`super::cases`], over IPv4 and IPv6.
const PROTOCOLS: [(&str, Part, Part); 3] = [
    ("ESP", part("INET_ESP", "esp4"), part("INET6_ESP", "esp6")),
    ("AH", part("INET_AH", "ah4"), part("INET6_AH", "ah6")),
    ("IPComp", part("INET_IPCOMP", "ipcomp"), part("INET6_IPCOMP", "ipcomp6")),
];
/// The algorithms; modules as Linux 6.1 to 7.2 name them, where an option has one.
const ALGORITHMS: [(&str, Part); 21] = [
    ("null", part("CRYPTO_NULL", "crypto_null")),
    ("des-cbc", part("CRYPTO_DES", "des_generic")),
    ("3des-cbc", part("CRYPTO_DES", "des_generic")),
    ("cast128-cbc", part("CRYPTO_CAST5", "cast5_generic")),
    ("blowfish-cbc", part("CRYPTO_BLOWFISH", "blowfish_generic")),
    ("aes-cbc", part("CRYPTO_CBC", "cbc")),
    ("serpent-cbc", part("CRYPTO_SERPENT", "serpent_generic")),
    ("camellia-cbc", part("CRYPTO_CAMELLIA", "camellia_generic")),
    ("twofish-cbc", part("CRYPTO_TWOFISH", "twofish_generic")),
    ("aes-ctr", part("CRYPTO_CTR", "ctr")),
    ("sm4-cbc", part("CRYPTO_SM4_GENERIC", "sm4_generic")),
    ("aes-ccm", part("CRYPTO_CCM", "ccm")),
    ("aes-g", part("CRYPTO_GCM", "gcm")),
    ("chacha20-poly1305", part("CRYPTO_CHACHA20POLY1305", "chacha20poly1305")),
    ("hmac-md5", part("CRYPTO_MD5", "md5")),
    ("hmac-sha1", part("CRYPTO_SHA1", "sha1_generic")),
    ("hmac-sha256", part("CRYPTO_SHA256", "sha256_generic")),
    ("hmac-sha", part("CRYPTO_SHA512", "sha512_generic")),
    ("hmac-ripemd160", part("CRYPTO_RMD160", "rmd160")),
    ("aes-xcbc-mac", part("CRYPTO_XCBC", "xcbc")),
    ("hmac-sm3", part("CRYPTO_SM3", "sm3")),
];

/// The parts that protocols are.
pub fn protocols() -> impl Iterator<Item = Part> {
    PROTOCOLS.iter().flat_map(|(_, v4, v6)| [*v4, *v6])
}

/// The part of the kernel that a case of [`super::cases`] is about.
pub fn of_case(name: &str) -> Option<Part> {
    let (first, family) = (name.split(' ').next().unwrap_or_default(), name.rsplit(' ').next().unwrap_or_default());
    if let Some((_, v4, v6)) = PROTOCOLS.iter().find(|(protocol, ..)| *protocol == first) {
        return Some(if family == "IPv6" { *v6 } else { *v4 });
    }
    match first {
        "NAT" => Some(part("INET_ESP", "esp4")),
        "policies" => Some(XFRM_USER),
        _ => ALGORITHMS.iter().find(|(algorithm, _)| name.starts_with(algorithm)).map(|(_, part)| *part),
    }
}

/// What says how the kernel was built.
pub struct Modules {
    /// `/proc/modules`.
    loaded: String,
    /// `modules.builtin` and `modules.dep` of the kernel that runs, if they are there.
    built_in: Option<String>,
    loadable: Option<String>,
    /// `/boot/config-…`.
    config: Option<String>,
}

impl Modules {
    /// Of the kernel that runs.
    pub fn read() -> Self {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_owned()).unwrap_or_default();
        let directory = Path::new("/lib/modules").join(&release);
        let mut config = std::ffi::OsString::from("/boot/config-");
        config.push(&release);
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        Self {
            loaded: read(Path::new("/proc/modules")).unwrap_or_default(),
            built_in: read(&directory.join("modules.builtin")),
            loadable: read(&directory.join("modules.dep")),
            config: read(Path::new(&config)),
        }
    }

    /// How a part is there.
    pub fn state(&self, part: Part) -> State {
        let of_kernel = |line: &str| {
            // "kernel/net/ipv4/esp4.ko.xz: kernel/…"
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split(".ko").next().unwrap_or_default().replace('-', "_") == part.module
        };
        let has = |list: &Option<String>| list.as_ref().is_some_and(|text| text.lines().any(of_kernel));
        let option = |value: &str| {
            let line = format!("CONFIG_{}={value}", part.config);
            self.config.as_ref().is_some_and(|text| text.lines().any(|one| one == line))
        };
        if self.loaded.lines().any(|line| line.split(' ').next() == Some(part.module)) {
            State::Loaded
        } else if has(&self.built_in) || option("y") {
            State::BuiltIn
        } else if has(&self.loadable) {
            State::Loadable
        } else if self.built_in.is_some() || self.config.is_some() && !option("m") {
            State::Absent
        } else {
            State::Unknown
        }
    }

    /// What to do about a part that does not work.
    pub fn remedy(&self, part: Part) -> String {
        let Part { config, module } = part;
        match self.state(part) {
            State::BuiltIn => format!("CONFIG_{config} is built in"),
            State::Loaded => format!("{module} is loaded"),
            State::Absent => format!("CONFIG_{config}, which this kernel is built without"),
            State::Loadable | State::Unknown => format!("CONFIG_{config}, modprobe {module}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Modules {
        /// A kernel's with a module of each kind.
        pub fn of_test() -> Self {
            modules()
        }
    }

    fn modules() -> Modules {
        Modules {
            loaded: "esp4 28672 0 - Live 0x0\n".to_owned(),
            built_in: Some("kernel/net/xfrm/xfrm_user.ko\nkernel/crypto/sha1-generic.ko\n".to_owned()),
            loadable: Some("kernel/net/ipv4/ipcomp.ko.xz: kernel/net/xfrm/xfrm_ipcomp.ko.xz\n".to_owned()),
            config: None,
        }
    }

    #[test]
    fn how_a_part_is_there() {
        let modules = modules();
        let state = |name| modules.state(of_case(name).unwrap());
        assert_eq!(state("ESP tunnel IPv4"), State::Loaded);
        assert_eq!(state("policies IPv6"), State::BuiltIn);
        assert_eq!(state("hmac-sha1"), State::BuiltIn);
        assert_eq!(state("IPComp transport IPv4"), State::Loadable);
        assert_eq!(state("IPComp transport IPv6"), State::Absent);
        assert_eq!(Modules { built_in: None, ..modules }.state(AF_KEY), State::Unknown);
    }

    #[test]
    fn what_to_type() {
        let remedy = |name| modules().remedy(of_case(name).unwrap());
        assert_eq!(remedy("IPComp tunnel IPv4"), "CONFIG_INET_IPCOMP, modprobe ipcomp");
        assert_eq!(remedy("aes-gcm-16"), "CONFIG_CRYPTO_GCM, which this kernel is built without");
    }

    #[test]
    fn a_configuration_says_it_too() {
        let config = Some("CONFIG_INET_AH=y\nCONFIG_INET6_AH=m\n".to_owned());
        let modules = Modules { loaded: String::new(), built_in: None, loadable: None, config };
        let state = |name| modules.state(of_case(name).unwrap());
        assert_eq!(state("AH tunnel IPv4"), State::BuiltIn);
        assert_eq!(state("AH tunnel IPv6"), State::Unknown);
        assert_eq!(state("ESP tunnel IPv6"), State::Absent);
    }

    #[test]
    fn every_case_has_its_part() {
        for case in super::super::cases::all(&std::collections::BTreeSet::new(), true) {
            assert!(of_case(&case.name).is_some(), "{}", case.name);
        }
    }
}
