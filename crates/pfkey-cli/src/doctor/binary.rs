//! A program file: what of it decides how it is brought to PF_KEY.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use object::elf;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _, Sym as _};
use object::{Endianness, StringTable};

/// So much of a file is read at most. Larger programs have their sections' table behind it, which is done without.
const MOST: u64 = 256 << 20;
/// Notes that are looked at.
const NOTES: usize = 64;

/// What a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// The program that executes it, if it is a script.
    pub script_of: Option<String>,
    /// Of 32 bits.
    pub is_32: bool,
    /// It has no dynamic linker.
    pub is_static: bool,
    /// It is a library.
    pub is_library: bool,
    /// musl's dynamic linker loads it.
    pub is_musl: bool,
    /// The Go compiler made it.
    pub is_go: bool,
    /// Set-user-ID or set-group-ID.
    pub is_set_id: bool,
    /// It has file capabilities.
    pub has_capabilities: bool,
    /// The libraries that it names.
    pub needed: Vec<String>,
    /// It calls the C library's `socket`.
    pub calls_socket: bool,
    /// It calls functions of the libipsec that this library is: strongSwan has another of that name.
    pub calls_libipsec: bool,
    /// This library's code is inside: the archive, or the Rust crates.
    pub has_this_library: bool,
}

impl Binary {
    /// Reads a file, whatever it is.
    ///
    /// # Errors
    /// In words: it cannot be read, is no regular file, no program, or broken.
    pub fn read(path: &Path) -> Result<Self, String> {
        // Whoever only opens a device or a FIFO may do something to it.
        let stat = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if stat.is_dir() {
            return Err("it is a directory".to_owned());
        }
        if !stat.is_file() {
            return Err("it is no regular file".to_owned());
        }
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let mut file = open.map_err(|error| error.to_string())?;
        let stat = file.metadata().map_err(|error| error.to_string())?;
        if !stat.is_file() {
            return Err("it is no regular file".to_owned());
        }
        let (data, whole) = start(&mut file).map_err(|error| error.to_string())?;
        let mut binary = Self::parse(&data, whole)?;
        // What opens a descriptor knows where the machine's pfkeyd listens, and nobody else has a reason to.
        let place = pfkey_socket::SERVICE_PATH.as_bytes();
        binary.has_this_library = data.windows(place.len()).any(|bytes| bytes == place);
        binary.is_set_id = stat.permissions().mode() & (libc::S_ISUID | libc::S_ISGID) != 0;
        binary.has_capabilities = pfkey_socket::has_file_capabilities(file.as_fd());
        Ok(binary)
    }

    /// From a file's bytes; `whole` if there are no more.
    fn parse(data: &[u8], whole: bool) -> Result<Self, String> {
        if let Some(line) = data.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line.get(..256).unwrap_or(line)).trim().to_owned();
            return Ok(Self { script_of: Some(line), ..Self::default() });
        }
        if !data.starts_with(&elf::ELFMAG) {
            return Err("it is no program: neither ELF nor a script".to_owned());
        }
        let parsed = match data.get(4) {
            Some(&elf::ELFCLASS32) => of_class::<elf::FileHeader32<Endianness>>(data, true, whole),
            Some(&elf::ELFCLASS64) => of_class::<elf::FileHeader64<Endianness>>(data, false, whole),
            _ => return Err("a broken ELF file: its class is unknown".to_owned()),
        };
        parsed.map_err(|Broken(why)| format!("a broken ELF file: {why}"))
    }
}

/// Why an ELF file makes no sense.
struct Broken(String);

impl From<object::Error> for Broken {
    fn from(error: object::Error) -> Self {
        Self(error.to_string())
    }
}

/// The start of a file that may be too long, and whether it is all.
fn start(file: &mut File) -> std::io::Result<(Vec<u8>, bool)> {
    let mut data = Vec::new();
    file.take(4096).read_to_end(&mut data)?;
    if data.starts_with(&elf::ELFMAG) {
        file.take(MOST).read_to_end(&mut data)?;
    }
    let whole = file.read(&mut [0])? == 0;
    Ok((data, whole))
}

fn of_class<H: FileHeader<Endian = Endianness>>(data: &[u8], is_32: bool, whole: bool) -> Result<Binary, Broken> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut binary = Binary { is_32, ..Binary::default() };
    let segments = header.program_headers(endian, data)?;
    let (mut interpreter, mut named, mut pie) = (None, false, false);
    let (mut table, mut table_len, mut needed) = (None, None, Vec::new());
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            interpreter = Some(path);
        }
        for entry in segment.dynamic(endian, data)?.into_iter().flatten() {
            let value: u64 = entry.d_val(endian).into();
            match entry.tag32(endian) {
                Some(elf::DT_NULL) => break,
                Some(elf::DT_NEEDED) => needed.push(value),
                Some(elf::DT_STRTAB) => table = Some(value),
                Some(elf::DT_STRSZ) => table_len = Some(value),
                Some(elf::DT_SONAME) => named = true,
                Some(elf::DT_FLAGS_1) => pie = value & u64::from(elf::DF_1_PIE) != 0,
                _ => {}
            }
        }
        // A broken note is none.
        if let Ok(Some(notes)) = segment.notes(endian, data) {
            binary.is_go |= notes.take(NOTES).filter_map(Result::ok).any(|note| note.name() == b"Go");
        }
    }
    if header.e_type(endian) != elf::ET_EXEC && header.e_type(endian) != elf::ET_DYN {
        return Err(Broken("neither a program nor a library".to_owned()));
    }
    if !segments.iter().any(|segment| segment.p_type(endian) == elf::PT_LOAD) {
        return Err(Broken("nothing of it is ever loaded".to_owned()));
    }
    let is_dynamic = header.e_type(endian) == elf::ET_DYN;
    binary.is_library = is_dynamic && interpreter.is_none() && !pie && (named || !needed.is_empty());
    binary.is_static = interpreter.is_none() && !binary.is_library;
    binary.is_musl = interpreter.is_some_and(|path| path.windows(7).any(|part| part == b"ld-musl"));
    if let (Some(address), Some(len)) = (table, table_len) {
        let loaded = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
        let mut ranges = loaded.filter_map(|segment| segment.data_range(endian, data, address, len).ok()?);
        let strings = ranges.next();
        let strings = StringTable::new(strings.unwrap_or_default(), 0, strings.map_or(0, |s| s.len() as u64));
        let name = |offset: u64| u32::try_from(offset).ok().and_then(|offset| strings.get(offset).ok());
        let names = needed.into_iter().filter_map(name);
        binary.needed = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    }
    // The sections, which a program can do without.
    let sections = match header.sections(endian, data) {
        Ok(sections) => sections,
        Err(error) if whole && header.e_shnum(endian) > 0 => return Err(error.into()),
        Err(_) => return Ok(binary),
    };
    binary.is_go |= [&b".go.buildinfo"[..], b".note.go.buildid"]
        .iter()
        .any(|name| sections.section_by_name(endian, name).is_some());
    if let Ok(symbols) = sections.symbols(endian, data, elf::SHT_DYNSYM) {
        for symbol in symbols.iter().filter(|symbol| symbol.is_undefined(endian)) {
            let Ok(name) = symbol.name(endian, symbols.strings()) else { continue };
            binary.calls_socket |= name == b"socket";
            binary.calls_libipsec |= name.starts_with(b"pfkey_") || name.starts_with(b"ipsec_set_policy");
        }
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_test() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn this_program() {
        let binary = Binary::read(Path::new("/proc/self/exe")).unwrap();
        assert!(!binary.is_library && !binary.is_set_id && !binary.is_go && binary.script_of.is_none());
        assert_eq!(binary.is_32, cfg!(target_pointer_width = "32"));
        assert!(binary.is_static || binary.needed.iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn what_is_no_program() {
        for (data, why) in [
            (&b""[..], "no program"),
            (b"\x7fEL", "no program"),
            (b"\x7fELF", "class"),
            (b"\x7fELF\x02\x01\x01", "broken"),
            (b"just text", "no program"),
        ] {
            assert!(Binary::parse(data, true).unwrap_err().contains(why), "{data:?}");
        }
        assert_eq!(Binary::parse(b"#! /bin/sh -e\nexit", true).unwrap().script_of.unwrap(), "/bin/sh -e");
        for path in ["/", "/dev/null", "/nonexistent/file"] {
            Binary::read(Path::new(path)).unwrap_err();
        }
    }

    #[test]
    fn a_truncated_program() {
        let data = this_test();
        for part in 1..64 {
            // Never as something else than it is: without its sections' table it is broken.
            Binary::parse(&data[..data.len() * part / 64], true).unwrap_err();
        }
        let whole = Binary::parse(&data, true).unwrap();
        // A file of which only the start was read has its libraries all the same.
        assert_eq!(Binary::parse(&data[..data.len() - 64], false).unwrap().needed, whole.needed);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..4096, bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..64)) {
            static DATA: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut data = DATA.get_or_init(|| { let mut data = this_test(); data.truncate(1 << 20); data }).clone();
            data[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = Binary::parse(&data, false);
            let _ = Binary::parse(&data, true);
        }
    }
}
