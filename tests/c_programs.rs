//! The C programs print, on the embedded engine, what they printed on AF_KEY of a real kernel
//! (c-tests/expected.txt was recorded on Linux 7.2.7).

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::process::Command;

const PROGRAMS: [&str; 8] =
    ["sadb_add", "sadb_dump", "sadb_register", "sadb_static", "sadb_dynamic", "spd", "two_listeners", "fork_and_pass"];

fn build_all(dir: &std::path::Path, suffix: &str, flags: &[&str]) {
    let sources = c::root().join("c-tests");
    for program in PROGRAMS {
        let files = [sources.join(format!("{program}.c")), sources.join("common.c")];
        c::compile(dir, &format!("{program}{suffix}"), &files, flags);
    }
}

/// The programs of chapter 19 of Unix Network Programming.
fn build_unp(dir: &std::path::Path, suffix: &str, flags: &[&str]) {
    let sources = c::root().join("c-tests");
    for program in ["dump", "add", "register"] {
        let files = [format!("unp/{program}.c"), "unp/name.c".to_owned(), "common.c".to_owned()];
        c::compile(dir, &format!("{program}{suffix}"), &files.map(|file| sources.join(file)), flags);
    }
}

/// Compares what programs of a directory printed with what they printed on a real kernel.
#[track_caller]
fn assert_as_recorded(printed: &[u8], recording: &str) {
    let printed = String::from_utf8_lossy(printed);
    let expected = std::fs::read_to_string(c::root().join(recording)).expect("the recorded output");
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (printed.lines().collect(), expected.lines().collect());
    for (number, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(our, their, "line {} of {recording}", number + 1);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn as_on_a_real_kernel() {
    let dir = c::scratch("c_programs");
    build_all(&dir, "", &[]);
    let mut command = Command::new(c::program("pfkeyd"));
    command.arg("--").arg(c::root().join("c-tests/run-all")).arg(&dir);
    assert_as_recorded(&c::run(&mut command).stdout, "c-tests/expected.txt");
}

/// `c-tests/unp/expected.txt` was recorded on Linux 7.2.7.
#[test]
#[cfg(target_endian = "little")]
fn the_books_programs_as_on_a_real_kernel() {
    let dir = c::scratch("unp");
    build_unp(&dir, "", &[]);
    let mut command = Command::new(c::program("pfkeyd"));
    command.arg("--").arg(c::root().join("c-tests/unp/run-all")).arg(&dir);
    assert_as_recorded(&c::run(&mut command).stdout, "c-tests/unp/expected.txt");
}

#[test]
fn the_books_listing_refuses_what_is_no_message() {
    let dir = c::scratch("unp_refused");
    let program = c::compile_text(
        &dir,
        "refused",
        r#"
        #include <stdio.h>
        #include <pfkey_rs.h>
        int main(void)
        {
            struct sadb_msg both[2] = { { .sadb_msg_version = 2, .sadb_msg_type = SADB_FLUSH, .sadb_msg_len = 2 } };
            struct sadb_msg *msg = both;
            printf("%d\n", pfkey_print_sadb_msg(msg, sizeof *msg, 0));
            printf("%d", pfkey_print_sadb_msg(msg, 24, 0));
            printf(" %s\n", ipsec_strerror());
            msg->sadb_msg_version = 1;
            printf("%d", pfkey_print_sadb_msg(msg, sizeof *msg, 0));
            printf(" %s\n", ipsec_strerror());
            printf("%d", pfkey_print_sadb_msg(NULL, sizeof *msg, 0));
            printf(" %s\n", ipsec_strerror());
            return 0;
        }"#,
        &[],
    );
    let output = c::run(&mut Command::new(program));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "SADB Message Flush, errno 0, satype Unspecified, seq 0, pid 0\n0\n\
         -1 Invalid sadb message\n-1 Invalid version\n-1 Invalid argument\n"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "SADB Message length (16) doesn't match msglen (24)\nSADB Message version not PF_KEY_V2\n"
    );
}

/// A dump of ten thousand SAs with the smallest receive buffer is complete and in order.
#[test]
fn a_dump_with_a_small_buffer_is_complete() {
    let dir = c::scratch("small_buffer");
    let daemon = daemon::Daemon::start(&dir);
    let file: String = (0..10_000).map(|n| format!("add 10.0.0.1 10.0.0.2 esp {} -E null;\n", 0x1000 + n)).collect();
    std::fs::write(dir.join("sas"), file).expect("a file");
    daemon.ok(&["load", dir.join("sas").to_str().expect("a path")]);
    let sources = ["sadb_dump.c", "common.c"].map(|name| c::root().join("c-tests").join(name));
    let program = c::compile(&dir, "sadb_dump", &sources, &[]);
    let output = c::run(Command::new(program).args(["-r", "4096"]).env("PFKEY_BACKEND", daemon.backend()));
    let text = String::from_utf8(output.stdout).expect("text");
    let seqs: Vec<u32> = text
        .lines()
        .skip(2)
        .filter_map(|line| line.strip_prefix("DUMP, satype esp, seq ")?.split(',').next()?.parse().ok())
        .collect();
    assert_eq!(seqs, (1..10_000).chain([0]).collect::<Vec<u32>>());
    let spis = text.lines().filter_map(|line| line.strip_prefix("  SA: spi 0x")?.split(',').next());
    let spis: std::collections::BTreeSet<&str> = spis.collect();
    assert_eq!(spis.len(), 10_000);
}

#[test]
fn the_raw_variants_build_and_run_where_there_is_af_key() {
    let dir = c::scratch("c_programs_raw");
    build_all(&dir, "-raw", &["-DRAW_SOCKET"]);
    let output = Command::new(dir.join("sadb_dump-raw")).output().expect("it runs");
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert!(why.starts_with("socket(PF_KEY): "), "{why}");
        eprintln!("skipped: no AF_KEY here ({why})");
        return;
    }
    build_unp(&dir, "-raw", &["-DRAW_SOCKET"]);
    for (run_all, recording) in
        [("c-tests/run-all", "c-tests/expected.txt"), ("c-tests/unp/run-all", "c-tests/unp/expected.txt")]
    {
        // Each has SAs of its own.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let printed = c::run(Command::new(c::root().join(run_all)).arg(&dir).arg("-raw")).stdout;
        let expected = std::fs::read_to_string(c::root().join(recording)).expect("the recorded output");
        // Kernels differ in their algorithms; everything else is the same.
        let is_algorithm = |line: &&str| line.contains(" bytes, key ") || line.contains(" ivlen ");
        let without_algorithms = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !is_algorithm(line)).map(str::to_owned).collect()
        };
        assert_eq!(without_algorithms(&String::from_utf8(printed).expect("text")), without_algorithms(&expected));
    }
}

/// The dump functions write through C's stdio: their text stands where the program's own printf would put it,
/// on a pipe, where stdio buffers, too.
#[test]
fn output_interleaves_with_printf() {
    let dir = c::scratch("interleave");
    let program = c::compile_text(
        &dir,
        "interleave",
        r#"
        #include <stdio.h>
        #include <libpfkey.h>
        int main(void)
        {
            printf("one");
            ipsec_hexdump("\1\2\3\4", 4);
            printf(" two");
            ipsec_bindump((char *)" three", 6);
            kdebug_sadb(NULL);
            printf("four\n");
            return 0;
        }"#,
        &[],
    );
    let output = c::run(&mut Command::new(program));
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text, "one 01020304 two threekdebug_sadb: NULL pointer was passed.\nfour\n");
}

/// Many requests at once, one of which fails, and a listing that stops when it is told to.
#[test]
fn many_at_once() {
    let dir = c::scratch("many");
    let sources = c::root().join("c-tests");
    let program = c::compile(&dir, "many", &[sources.join("many.c"), sources.join("common.c")], &[]);
    let output = c::run(Command::new(program).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text, "request 500: File exists\nstopped with 7 after 10, at 0x13de\n999 SAs\n999 SAs\n");
}

/// An engine in the program's own process: the program checks what it is told, and prints what its key manager heard.
#[test]
fn an_engine_embedded_in_a_program() {
    let dir = c::scratch("embedded_engine");
    let sources = c::root().join("c-tests");
    let files = [sources.join("embedded_engine.c"), sources.join("common.c")];
    let program = c::compile(&dir, "embedded_engine", &files, &[]);
    let output = c::run(&mut Command::new(program));
    let text = String::from_utf8(output.stdout).expect("text");
    let heard: Vec<&str> =
        text.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split([' ', ',']).next()).collect();
    assert_eq!(heard, ["REGISTER", "X_SPDADD", "ACQUIRE", "ADD", "EXPIRE", "after", "EXPIRE"], "{text}");
    assert!(text.contains("after 60 seconds"), "{text}");
}

/// Attributes of XFRM's: the program compares bytes with the structures of linux/xfrm.h, and prints what is refused.
#[test]
fn what_xfrm_has_beyond_pf_key() {
    let dir = c::scratch("xfrm");
    let sources = c::root().join("c-tests");
    let program = c::compile(&dir, "xfrm", &[sources.join("xfrm.c"), sources.join("common.c")], &[]);
    let output = c::run(Command::new(program).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "attribute 23 (XFRMA_REPLAY_ESN_VAL) has the wrong length, or a value that it cannot have\n\
         attribute 31 (XFRMA_IF_ID) has the wrong length, or a value that it cannot have\n\
         attribute 15 (XFRMA_LASTUSED) is what the kernel reports; it cannot be set\n\
         attribute 2 says what PF_KEY says in another place\n\
         4100 bytes of attributes: at most 4096 are possible\n\
         Invalid address family\n\
         attribute 31 (XFRMA_IF_ID) is not there\n\
         attribute 23 (XFRMA_REPLAY_ESN_VAL) says what PF_KEY says in another place\n\
         flags 0x80 do not belong here\n\
         Operation not supported: attribute 35 (XFRMA_SA_PCPU): only a kernel does this\n"
    );
}
