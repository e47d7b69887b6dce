//! systemd's unit of a service, as its files have it (systemd.unit(5)): what it starts, and what of its sandbox is in the way.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where units are, the first that counts first.
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Bytes of a file, and files of a directory, that are looked at.
const MOST: u64 = 1 << 20;
const FILES: usize = 20_000;
/// Where a name without a directory is sought.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// One command of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// `-`, `@`, `+`, … before it.
    prefix: String,
    /// The program.
    pub program: String,
    /// What stands behind it, as it was written.
    arguments: String,
}

/// A unit.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// ExecStart=.
    pub exec: Vec<Exec>,
    /// It has RestrictAddressFamilies=.
    pub restricts_families: bool,
    /// It has SystemCallFilter=.
    pub filters_calls: bool,
    /// RootDirectory= or RootImage=.
    pub root: Option<String>,
    /// CapabilityBoundingSet= has no CAP_NET_ADMIN.
    pub lacks_capability: bool,
    /// The LD_LIBRARY_PATH that it sets.
    pub library_path: Option<String>,
}

/// A small regular file's text; nothing for anything else.
pub fn read(path: &Path) -> Option<String> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it is a service's name, and no path.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    name.len() <= 255
        && name.strip_suffix(".service").is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
        && name.chars().all(fits)
}

/// The unit of a name, without the drop-in `but`.
pub fn find(name: &str, but: Option<&Path>) -> Option<Unit> {
    find_in(&DIRECTORIES.map(Path::new), name, but)
}

/// The units that start a program.
pub fn of_program(program: &Path) -> Vec<Unit> {
    units_of_program(&DIRECTORIES.map(Path::new), program)
}

fn units_of_program(directories: &[&Path], program: &Path) -> Vec<Unit> {
    let Ok(program) = program.canonicalize() else { return Vec::new() };
    let mut names = BTreeMap::new();
    for directory in directories {
        for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).take(FILES) {
            if let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)) {
                names.entry(name.to_owned()).or_insert(());
            }
        }
    }
    let units = names.into_keys().filter_map(|name| find_in(directories, &name, None));
    units.filter(|unit| unit.exec.iter().any(|exec| exec.starts(&program))).collect()
}

/// `foo@.service` of `foo@bar.service`.
fn template(name: &str) -> Option<String> {
    let (stem, instance) = name.split_once('@')?;
    (instance != ".service").then(|| format!("{stem}@.service"))
}

/// What a unit's drop-ins are called by, the most special first: its name, its template, and what its name begins with up to
/// each dash (systemd.unit(5)).
fn drop_in_names(name: &str) -> Vec<String> {
    let mut all: Vec<String> = std::iter::once(name.to_owned()).chain(template(name)).collect();
    let mut prefix = name.split_once('@').map_or_else(|| name.trim_end_matches(".service"), |(prefix, _)| prefix);
    while let Some((before, _)) = prefix.trim_end_matches('-').rsplit_once('-') {
        all.push(format!("{before}-.service"));
        prefix = before;
    }
    all
}

fn find_in(directories: &[&Path], name: &str, but: Option<&Path>) -> Option<Unit> {
    let template = template(name);
    let names: Vec<&str> = std::iter::once(name).chain(template.as_deref()).collect();
    let places = || names.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let path = places().find(|path| path.symlink_metadata().is_ok())?;
    let mut unit = Unit { name: name.to_owned(), path: path.clone(), ..Unit::default() };
    // A masked unit is a link to /dev/null, and starts nothing.
    unit.take(&read(&path)?);
    // Of drop-ins of one name the first counts; all are read in the order of their names.
    let mut drop_ins = BTreeMap::new();
    let alias = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let mut sought = drop_in_names(name);
    sought.extend(alias.filter(|alias| is_name(alias)).iter().flat_map(|alias| drop_in_names(alias)));
    // What is of all services counts least.
    sought.push("service".to_owned());
    for place in sought.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name))) {
        let mut directory = place.into_os_string();
        directory.push(".d");
        for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).take(FILES) {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                drop_ins.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
    }
    for path in drop_ins.into_values().filter(|path| Some(path.as_path()) != but) {
        unit.take(&read(&path).unwrap_or_default());
    }
    Some(unit)
}

impl Unit {
    /// Takes what a file says of its service.
    fn take(&mut self, text: &str) {
        let mut service = false;
        for line in lines(text) {
            let line = line.trim();
            if line.starts_with('[') {
                service = line == "[Service]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| service) else { continue };
            let value = value.trim();
            match key.trim() {
                "ExecStart" if value.is_empty() => self.exec.clear(),
                "ExecStart" => self.exec.extend(Exec::parse(value)),
                // "none" allows none.
                "RestrictAddressFamilies" => self.restricts_families = !value.is_empty(),
                "SystemCallFilter" => self.filters_calls = !value.is_empty(),
                "RootDirectory" | "RootImage" => {
                    self.root = Some(value.to_owned()).filter(|root| !root.is_empty() && root != "/");
                }
                "CapabilityBoundingSet" => {
                    let named = value.split_whitespace().any(|name| name.trim_start_matches('~') == "CAP_NET_ADMIN");
                    self.lacks_capability = named == value.starts_with('~');
                }
                "Environment" => {
                    let words = value.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
                    if let Some(path) = words.filter_map(|word| word.strip_prefix("LD_LIBRARY_PATH=")).next_back() {
                        self.library_path = Some(path.to_owned()).filter(|path| !path.is_empty());
                    }
                }
                _ => {}
            }
        }
    }
}

/// Lines, of which a backslash at the end makes one; comments are none, also between two parts of one.
fn lines(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        let whole = open.take().map_or_else(|| part.to_owned(), |before| before + " " + part);
        if goes_on {
            open = Some(whole);
        } else {
            all.push(whole);
        }
    }
    all.extend(open);
    all
}

impl Exec {
    fn parse(value: &str) -> Option<Self> {
        let rest = value.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        let prefix = value.get(..value.len() - rest.len()).unwrap_or_default();
        let (program, arguments) = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => rest.get(1..)?.split_once(quote)?,
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        let mut arguments = arguments.trim();
        if prefix.contains('@') {
            // The name that the program shall think it has, which another program cannot give it.
            arguments = arguments.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
        }
        let prefix = prefix.replace('@', "");
        (!program.is_empty()).then(|| Self { prefix, program: program.to_owned(), arguments: arguments.to_owned() })
    }

    /// Its program's file.
    pub fn path(&self) -> Option<PathBuf> {
        if self.program.contains('/') {
            return Path::new(&self.program).canonicalize().ok();
        }
        PROGRAMS.iter().find_map(|directory| Path::new(directory).join(&self.program).canonicalize().ok())
    }

    fn starts(&self, program: &Path) -> bool {
        self.path().is_some_and(|path| path == program)
            // What pfkey-run starts is its argument.
            || self.is_run() && self.arguments.split_whitespace().any(|word| Path::new(word) == program)
    }

    /// Whether it is pfkey-run, or pfkeyd --any.
    pub fn is_run(&self) -> bool {
        Path::new(&self.program).file_name().is_some_and(|name| name == "pfkey-run" || name == "pfkeyd")
    }

    /// It, as it is.
    pub fn as_written(&self) -> String {
        self.under("").replacen(' ', "", 1)
    }

    /// It, started by another.
    pub fn under(&self, runner: &str) -> String {
        let Self { prefix, program, arguments } = self;
        // A name with blanks was quoted.
        let quote = if program.contains(char::is_whitespace) { "\"" } else { "" };
        format!("{prefix}{runner} {quote}{program}{quote} {arguments}").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        let mut unit = Unit::default();
        unit.take(text);
        unit
    }

    #[test]
    fn what_a_unit_says() {
        let unit = unit(
            "[Unit]\nExecStart=/bin/no\n[Service]\n# ExecStart=/bin/no\nExecStart=/bin/first\nExecStart=\n\
             ExecStart=-@/usr/sbin/iked iked \\\n# between\n  -d -v\nRestrictAddressFamilies=AF_INET\n\
             Environment=\"A=b\" LD_LIBRARY_PATH=/x\nCapabilityBoundingSet=CAP_NET_RAW\nRootDirectory=/srv/iked\n",
        );
        assert_eq!(unit.exec.len(), 1);
        assert_eq!(unit.exec[0].under("/usr/bin/pfkey-run"), "-/usr/bin/pfkey-run /usr/sbin/iked -d -v");
        assert!(unit.restricts_families && unit.lacks_capability && !unit.filters_calls);
        assert_eq!((unit.root.as_deref(), unit.library_path.as_deref()), (Some("/srv/iked"), Some("/x")));
    }

    /// As systemd.unit(5) has them.
    #[test]
    fn what_drop_ins_are_called_by() {
        let names = |name| drop_in_names(name).join(" ");
        assert_eq!(names("racoon.service"), "racoon.service");
        assert_eq!(names("foo-bar-baz.service"), "foo-bar-baz.service foo-bar-.service foo-.service");
        assert_eq!(names("foo-bar@eth0-1.service"), "foo-bar@eth0-1.service foo-bar@.service foo-.service");
        assert_eq!(names("foo-@.service"), "foo-@.service");
    }

    #[test]
    fn drop_ins_of_templates_prefixes_and_of_all_services() {
        let root = std::env::temp_dir().join(format!("pfkey-unit-{}", std::process::id()));
        let [etc, lib] = ["etc", "lib"].map(|name| root.join(name));
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("[Service]\n{text}\n")).unwrap();
        };
        write(lib.join("vpn-ike@.service"), "ExecStart=/usr/sbin/iked -d");
        write(lib.join("service.d/10-all.conf"), "RestrictAddressFamilies=AF_INET");
        write(lib.join("vpn-.service.d/20-vpn.conf"), "SystemCallFilter=@system-service");
        write(etc.join("vpn-ike@.service.d/30-root.conf"), "RootDirectory=/srv/ike");
        let find = |name| find_in(&[&etc, &lib], name, None).unwrap();
        for name in ["vpn-ike@.service", "vpn-ike@eth0.service"] {
            let unit = find(name);
            assert!(unit.restricts_families && unit.filters_calls, "{unit:?}");
            assert_eq!((unit.root.as_deref(), unit.exec.len()), (Some("/srv/ike"), 1));
        }
        // Of one name the more special counts, and it may take back what is of all; an alias has the drop-ins of what it names.
        write(etc.join("vpn-.service.d/10-all.conf"), "RestrictAddressFamilies=");
        std::os::unix::fs::symlink(lib.join("vpn-ike@.service"), etc.join("ike@.service")).unwrap();
        assert!(!find("vpn-ike@eth0.service").restricts_families);
        assert!(find("ike@.service").filters_calls);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_family_at_all_is_a_restriction() {
        assert!(unit("[Service]\nRestrictAddressFamilies=none\n").restricts_families);
        assert!(!unit("[Service]\nRestrictAddressFamilies=none\nRestrictAddressFamilies=\n").restricts_families);
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["iked.service", "a@b.service", "x-y_z:1.service", "systemd-a\\x2db.service"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["iked", "../x.service", "/x.service", ".service", "..service", "a b.service", "a\n.service", "é.service"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[\\\\\n=\"'@ -]|ExecStart=|\\[Service\\]\n){0,60}") {
            let unit = unit(&format!("[Service]\n{text}"));
            for exec in &unit.exec {
                proptest::prop_assert!(!exec.under("x").contains('\n'));
            }
        }
    }
}
