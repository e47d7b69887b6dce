//! Requests and answers on one descriptor of a C program's: what it left unread there, closed, or gave away.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the C program once for all tests that run it.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = c::scratch("exchange");
        c::compile(&dir, "exchange", &[c::root().join("c-tests/checks/exchange.c")], &[])
    })
}

fn goes_well(test: &str) {
    let mut command = Command::new(program());
    c::run(command.arg(test).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
}

#[test]
fn a_batch_does_not_take_an_answer_that_was_left_unread_for_its_own() {
    goes_well("stale-batch");
}

#[test]
fn a_list_is_whole_whatever_was_left_unread() {
    goes_well("stale-dump");
}

#[test]
fn a_list_is_whole_on_a_non_blocking_descriptor() {
    goes_well("non-blocking");
}

#[test]
fn a_batch_does_not_outlive_its_descriptor() {
    goes_well("closed-batch");
}

#[test]
fn at_the_end_of_file_errno_says_so_and_an_attempt_leaves_none() {
    goes_well("ended");
}

#[test]
fn a_message_that_the_program_wrote_is_kept_in_a_batch_too() {
    goes_well("raw");
}

#[test]
fn a_received_key_is_in_its_message_only() {
    goes_well("received-keys");
}

/// Descriptors that are open before the library is loaded, and after it was unloaded; and that what has the number of one of the
/// library's is not closed.
#[test]
fn a_library_that_is_unloaded_leaves_no_descriptor() {
    if cfg!(not(target_env = "gnu")) {
        return println!("skipped: musl unloads nothing");
    }
    let dir = c::scratch("unloaded");
    let source = dir.join("unloaded.c");
    std::fs::write(
        &source,
        r#"
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        static int open_ones(void)
        {
            int n = 0;
            for (int fd = 3; fd < 300; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
            return n;
        }
        int main(int argc, char **argv)
        {
            int before = open_ones();
            for (int i = 0; i < 3; i++) {
                void *library = dlopen(argv[argc - 1], RTLD_NOW);
                int held, null;
                if (!library)
                    return puts(dlerror()), 1;
                held = open_ones() - before;
                if (i == 2) {
                    for (null = 3; null < 300 && fcntl(null, F_GETFD) < 0; null++)
                        ;
                    while (fcntl(null, F_GETFD) >= 0 && !(fcntl(null, F_GETFL) & O_PATH))
                        null++;
                    dup2(0, null);
                }
                if (dlclose(library) != 0 || dlopen(argv[argc - 1], RTLD_NOW | RTLD_NOLOAD))
                    return puts("not unloaded"), 1;
                printf("%d held, %d left\n", held, open_ones() - before);
            }
            return 0;
        }"#,
    )
    .expect("a source file");
    let program = c::compile_plain(&dir, "unloaded", &[source], &["-D_GNU_SOURCE", "-ldl"]);
    let mut command = Command::new(program);
    command.arg(dir.join("libpfkey_rs.so")).env("PFKEYD", c::program("pfkeyd"));
    assert_eq!(c::text(c::run(&mut command)), "1 held, 0 left\n1 held, 0 left\n1 held, 1 left\n");
}
