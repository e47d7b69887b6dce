//! What the shared object exports, how it is named, and how C programs link with it.

#[path = "support/c.rs"]
mod c;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

fn exported() -> Vec<String> {
    let text = std::fs::read_to_string(c::root().join("exports.txt")).expect("the list of exports");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn exactly_the_listed_symbols_are_exported() {
    let library = c::output_dir().join("libpfkey_rs.so");
    let output = c::run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, exported(), "nm -D and exports.txt (57 of libipsec 0.9.1, and our own)");
    assert!(names.iter().all(|name| !name.contains('@')), "no symbol versions, as libipsec");
}

#[test]
fn the_object_has_its_soname() {
    let library = c::output_dir().join("libpfkey_rs.so");
    let output = c::run(Command::new("readelf").arg("-d").arg(library));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("Library soname: [libpfkey_rs.so.0]"), "{text}");
}

/// Where functions begin, and whether they have something to drop or to catch (a language-specific data area): 32-bit ARM has tables
/// of its own, which name a routine for those and say what is said for the function before only once (EHABI); others have the `L` of an
/// augmentation.
fn to_unwind(library: &Path) -> BTreeMap<u64, bool> {
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let dump = if cfg!(target_arch = "arm") { "--unwind" } else { "--debug-dump=frames" };
    let dump = String::from_utf8(c::run(Command::new("readelf").arg(dump).arg(library)).stdout).expect("text");
    if cfg!(target_arch = "arm") {
        let functions = dump.split("\n0x").skip(1).filter_map(|function| Some((function.split_once(' ')?.0, function)));
        return functions
            .map(|(start, function)| (hex(start.trim_end_matches(':')), function.contains("Personality routine")))
            .collect();
    }
    let mut augmentations = HashMap::new();
    let mut found = BTreeMap::new();
    for frame in dump.split("\n\n") {
        let word = |key: &str| frame.split_once(key).and_then(|(_, rest)| rest.split([' ', '.', '\n']).next());
        let head = frame.trim_start().split(' ').next().unwrap_or_default();
        if let Some((_, rest)) = frame.split_once("Augmentation:") {
            augmentations.insert(head, rest.split('"').nth(1).unwrap_or_default());
        } else if let (Some(cie), Some(start)) = (word(" FDE cie="), word(" pc=")) {
            found.insert(hex(start), augmentations[cie].contains('L'));
        }
    }
    found
}

/// A cancelled thread unwinds the entries' frames, perhaps from between two instructions: one that has something to drop or
/// to catch would end the process.
#[test]
fn no_entry_has_anything_to_unwind() {
    let library = c::output_dir().join("libpfkey_rs.so");
    let symbols = c::run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)).stdout;
    let symbols = String::from_utf8(symbols).expect("text");
    let to_unwind = to_unwind(&library);
    let mut seen = 0;
    for (address, name) in symbols.lines().filter_map(|line| line.split_once(" T ")) {
        let address = u64::from_str_radix(address, 16).expect("an address");
        let found = to_unwind
            .range(..=address)
            .next_back()
            .filter(|(start, _)| cfg!(target_arch = "arm") || **start == address);
        assert_eq!(found.map(|(_, to_unwind)| *to_unwind), Some(false), "{name}");
        seen += 1;
    }
    assert!(seen > 57, "{seen}");
}

/// What Debian's packages promise of the library, and of which version they are.
#[test]
fn the_debian_packages_name_the_symbols_and_the_version() {
    let read = |file: &str| std::fs::read_to_string(c::root().join(file)).expect(file);
    let symbols = read("debian/libpfkey-rs0.symbols");
    let (head, lines) = symbols.split_once('\n').expect("lines");
    assert_eq!(head, "libpfkey_rs.so.0 libpfkey-rs0 #MINVER#");
    let mut named: Vec<&str> = lines.lines().filter_map(|line| line.trim().split_once("@Base ")).map(|l| l.0).collect();
    named.sort_unstable();
    let mut exported = exported();
    exported.sort();
    assert_eq!(named, exported);
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("debian/changelog").starts_with(&format!("libpfkey-rs ({version}) ")), "debian/changelog");
}

/// racoon has a copy relocation against `libipsec_opt`: the variable must be an object of its C size, and program
/// and library must see the same one. Likewise `__ipsec_errcode`, which a program may write.
#[test]
fn data_is_shared_with_the_program() {
    let dir = c::scratch("abi_data");
    let program = c::compile_text(
        &dir,
        "data",
        r#"
        #include <stdio.h>
        #include <string.h>
        #include <pfkey_rs.h>
        int main(void)
        {
            if (libipsec_opt != LIBIPSEC_OPT_NATT)
                return 1;
            if (pfkey_send_register(-1, 5) != -1 || __ipsec_errcode != 2)
                return 2;
            __ipsec_errcode = 16;
            if (strcmp(ipsec_strerror(), "Invalid prefix length") != 0)
                return 3;
            __ipsec_errcode = 77;
            if (strcmp(ipsec_strerror(), "Unknown error") != 0 || __ipsec_errcode != 30)
                return 4;
            return 0;
        }"#,
        &["-no-pie", "-fno-pie"],
    );
    c::run(&mut Command::new(&program));
    let output = c::run(Command::new("readelf").arg("-rW").arg(&program));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.lines().any(|l| l.contains("COPY") && l.contains("libipsec_opt")), "{text}");
}

/// The archive with what the .pc file names for it, in a program that is dynamic otherwise, and in one that is static altogether.
#[test]
fn static_linking_needs_only_what_the_pc_file_names() {
    let dir = c::scratch("abi_static");
    let template = std::fs::read_to_string(c::root().join("pkgconfig/pfkey_rs.pc.in")).expect("the template");
    let private = template.lines().find_map(|l| l.strip_prefix("Libs.private: ")).expect("Libs.private");
    std::fs::write(
        dir.join("s.c"),
        r#"
        #include <libpfkey.h>
        int main(void)
        {
            int s = pfkey_open();
            if (s < 0 || pfkey_send_flush(s, SADB_SATYPE_ESP) < 0)
                return 1;
            pfkey_close(s);
            return pfkey_get_softrate(0) != 80;
        }"#,
    )
    .expect("a source file");
    for how in [&[][..], &["-static"]] {
        if !how.is_empty() && !c::static_programs() {
            continue;
        }
        let program = dir.join(format!("s{}", how.concat()));
        let mut cc = c::cc();
        cc.args(how).arg("-I").arg(c::root().join("include")).arg("-o").arg(&program).arg(dir.join("s.c"));
        cc.arg(c::output_dir().join("libpfkey_rs.a")).args(private.split_whitespace());
        c::run(&mut cc);
        c::run(Command::new(program).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
    }
}

/// A program that was linked with libipsec runs on the libipsec.so.0 that `make install` makes of this library.
#[test]
fn a_program_linked_with_libipsec_runs_unchanged() {
    let dir = c::scratch("abi_libipsec");
    std::fs::create_dir_all(dir.join("theirs")).expect("a directory");
    std::fs::create_dir_all(dir.join("ours")).expect("a directory");
    // A stand-in for the real one: the name and the symbols are what the linker looks at.
    std::fs::write(
        dir.join("theirs.c"),
        "int libipsec_opt = 1; int pfkey_get_softrate(unsigned t) { return (int)t; }\n",
    )
    .expect("a source file");
    let theirs = dir.join("theirs/libipsec.so.0");
    c::run(
        c::cc().args(["-shared", "-fPIC", "-Wl,-soname,libipsec.so.0", "-o"]).arg(&theirs).arg(dir.join("theirs.c")),
    );
    std::fs::write(
        dir.join("p.c"),
        r#"
        #include <stdio.h>
        #include <sys/socket.h>
        #include <unistd.h>
        extern int libipsec_opt;
        int pfkey_get_softrate(unsigned);
        int main(void)
        {
            /* As racoon: a socket of its own, and an answer that is there at once. */
            static const struct { unsigned char version, type, error, satype; unsigned short len, reserved; unsigned seq, pid; }
                flush = { 2, 9, 0, 0, 2, 0, 0, 0 };
            unsigned char answer[16];
            int s = socket(PF_KEY, SOCK_RAW | SOCK_NONBLOCK, 2);
            if (libipsec_opt == 1 && pfkey_get_softrate(0) == 80)
                printf("libipsec, ");
            if (send(s, &flush, 16, 0) == 16 && recv(s, answer, 16, 0) == 16)
                printf("PF_KEY\n");
            return 0;
        }"#,
    )
    .expect("a source file");
    let program = dir.join("p");
    c::run(c::cc().arg("-o").arg(&program).arg(dir.join("p.c")).arg(&theirs));
    // As the Makefile makes it.
    let mut symbols = exported();
    symbols.extend(c::interposers());
    symbols.sort();
    let map = format!("{{ global: {};\nlocal: *; }};\n", symbols.join(";\n"));
    std::fs::write(dir.join("libipsec.map"), map).expect("a version script");
    let archive = c::build(&["--package", "pfkey_preload", "--example", "pfkey_compat"], "examples/libpfkey_compat.a");
    let mut cc = c::cc();
    cc.args(["-shared", "-Wl,-soname,libipsec.so.0", "-o"]).arg(dir.join("ours/libipsec.so.0"));
    cc.arg(format!("-Wl,--version-script={}", dir.join("libipsec.map").display()));
    cc.arg("-Wl,--whole-archive").arg(archive).arg("-Wl,--no-whole-archive");
    cc.args(["-Wl,--gc-sections", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]);
    c::run(&mut cc);
    let output = c::run(
        Command::new(&program)
            .env("LD_LIBRARY_PATH", dir.join("ours"))
            .env("PFKEY_BACKEND", "embedded")
            .env("PFKEYD", c::program("pfkeyd")),
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "libipsec, PF_KEY\n");
    let output = c::run(Command::new("nm").args(["-D", "--defined-only"]).arg(dir.join("ours/libipsec.so.0")));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    names.sort_unstable();
    assert_eq!(names, symbols);
}
