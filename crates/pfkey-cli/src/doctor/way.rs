//! The way by which a program is brought to PF_KEY.

use std::path::{Path, PathBuf};

use super::binary::Binary;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is there already.
    Nothing,
    /// Our libipsec.so.0 instead of the one that it names.
    Library,
    /// The preload object.
    Run,
    /// The process beside it.
    Any,
    /// What it is does not say.
    Unknown,
}

/// Where libipsec.so.0 and pfkey-run may be: as `docs/migration.md` has it, and Debian's packages.
const LIBRARIES: [&str; 3] =
    ["/usr/lib/libipsec-compat", "/usr/local/lib/libipsec-compat", "/usr/local/lib/libipsec-pfkey-rs"];
const RUN: [&str; 2] = ["/usr/bin/pfkey-run", "/usr/local/bin/pfkey-run"];
const LIBIPSEC: &str = "libipsec.so.0";

/// The way, and why it.
pub fn of(binary: &Binary) -> (Way, String) {
    let needs = |name: &str| binary.needed.iter().any(|needed| needed.starts_with(name));
    if let Some(interpreter) = &binary.script_of {
        return (Way::Unknown, format!("a script of {interpreter}: ask for the program that it starts"));
    }
    if binary.is_library {
        return (Way::Unknown, "a library: ask for the program that loads it".to_owned());
    }
    if needs("libpfkey_rs.so") || needs("libpfkey_preload.so") {
        return (Way::Nothing, "it is linked with this library".to_owned());
    }
    if binary.has_this_library {
        return (Way::Nothing, "this library is a part of it".to_owned());
    }
    let reasons = [
        (binary.is_go, "written in Go, which asks the kernel without the C library"),
        (binary.is_static, "static"),
        // The preload object is of this machine's kind, and on one of 32 bits so is the program.
        (binary.is_32 && cfg!(target_pointer_width = "64"), "of 32 bits"),
        (binary.is_musl, "of musl's C library"),
        (binary.is_set_id, "set-user-ID or set-group-ID"),
        (binary.has_capabilities, "with file capabilities"),
    ];
    let reasons: Vec<&str> = reasons.iter().filter(|(is_so, _)| *is_so).map(|(_, reason)| *reason).collect();
    if !reasons.is_empty() {
        return (Way::Any, format!("it is {}", reasons.join(", ")));
    }
    match (needs(LIBIPSEC), binary.calls_libipsec, binary.calls_socket) {
        (true, true, _) => (Way::Library, format!("it is linked with {LIBIPSEC}")),
        (true, false, _) => (Way::Run, format!("its {LIBIPSEC} is strongSwan's, of the same name; it stays")),
        (false, _, true) => (Way::Run, "it calls socket by itself".to_owned()),
        (false, _, false) => (Way::Run, "it calls no socket by itself; one of its libraries may".to_owned()),
    }
}

/// The directory of our libipsec.so.0, and whether it is there.
pub fn library() -> (PathBuf, bool) {
    let of_debian = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    let of_debian = of_debian.map(|entry| entry.path().join("libipsec-pfkey-rs"));
    let mut all = LIBRARIES.map(PathBuf::from).into_iter().chain(of_debian);
    let found = all.find(|directory| directory.join(LIBIPSEC).is_file());
    found.map_or_else(|| (PathBuf::from("/usr/lib/libipsec-compat"), false), |directory| (directory, true))
}

/// pfkey-run, and whether it is there.
pub fn pfkey_run() -> (&'static str, bool) {
    let found = RUN.into_iter().find(|path| Path::new(path).is_file());
    found.map_or(("/usr/bin/pfkey-run", false), |path| (path, true))
}

impl Way {
    /// What one types before the program.
    pub fn prefix(self) -> Option<String> {
        match self {
            Self::Library => Some(format!("LD_LIBRARY_PATH={}", library().0.display())),
            Self::Run => Some("pfkey-run".to_owned()),
            Self::Any => Some("pfkey-run --any".to_owned()),
            Self::Nothing | Self::Unknown => None,
        }
    }

    /// What has to be installed first, if it is not.
    pub fn lack(self) -> Option<String> {
        match self {
            Self::Library if !library().1 => Some(
                "make install LIBIPSEC_COMPAT=/usr/lib/libipsec-compat, or the package libipsec-pfkey-rs".to_owned(),
            ),
            Self::Run | Self::Any if !pfkey_run().1 => Some("make install, or the package pfkey-preload".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_each() {
        let linked = |needed: &[&str]| Binary {
            needed: needed.iter().map(|name| (*name).to_owned()).collect(),
            ..Binary::default()
        };
        let racoon = Binary { calls_libipsec: true, calls_socket: true, ..linked(&["libipsec.so.0", "libc.so.6"]) };
        let iked = Binary { calls_socket: true, ..linked(&["libc.so.6"]) };
        for (binary, way) in [
            (racoon.clone(), Way::Library),
            (Binary { is_set_id: true, ..racoon.clone() }, Way::Any),
            (Binary { has_capabilities: true, ..racoon.clone() }, Way::Any),
            (Binary { calls_libipsec: false, ..racoon }, Way::Run),
            (iked.clone(), Way::Run),
            (
                Binary { is_32: true, ..iked.clone() },
                if cfg!(target_pointer_width = "64") { Way::Any } else { Way::Run },
            ),
            (Binary { is_musl: true, ..iked.clone() }, Way::Any),
            (Binary { is_go: true, ..iked }, Way::Any),
            (Binary { is_static: true, ..Binary::default() }, Way::Any),
            (linked(&["libpfkey_rs.so.0", "libipsec.so.0"]), Way::Nothing),
            (Binary { is_static: true, has_this_library: true, ..Binary::default() }, Way::Nothing),
            (Binary { is_library: true, has_this_library: true, ..Binary::default() }, Way::Unknown),
            (Binary { is_library: true, ..linked(&["libc.so.6"]) }, Way::Unknown),
            (Binary { script_of: Some("/bin/sh".to_owned()), ..Binary::default() }, Way::Unknown),
        ] {
            assert_eq!(of(&binary).0, way, "{binary:?}");
        }
    }
}
