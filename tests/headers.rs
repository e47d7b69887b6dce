//! The headers compile alone in every dialect that clients use, say what libipsec's say, and are fresh.

#[path = "support/c.rs"]
mod c;

use std::process::Command;

/// Compiles a text that includes headers, in every dialect.
fn everywhere(name: &str, text: &str, flags: &[&str]) {
    let dir = c::scratch(name);
    let source = dir.join("h.c");
    std::fs::write(&source, text).expect("a source file");
    let dialects: [(&str, &[&str]); 6] = [
        ("cc", &["-std=gnu89"]),
        ("cc", &["-std=c11"]),
        ("cc", &["-std=gnu11"]),
        ("cc", &["-std=gnu17"]),
        ("cc", &["-std=gnu2x"]),
        ("c++", &["-x", "c++", "-std=c++17"]),
    ];
    for (compiler, dialect) in dialects {
        let variable = if compiler == "cc" { "CC" } else { "CXX" };
        let mut command = Command::new(std::env::var_os(variable).unwrap_or_else(|| compiler.into()));
        command.args(dialect).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]).args(flags);
        command.arg("-I").arg(c::root().join("include")).arg("-I").arg(c::root().join("include/libpfkey_rs"));
        c::run(command.arg(&source));
    }
}

#[test]
fn libpfkey_h_compiles_alone_and_twice() {
    everywhere("h_libpfkey", "#include <libpfkey.h>\n#include <libpfkey.h>\nint x;\n", &[]);
}

/// `crates/pfkey-wire/src/layout.rs` and its numbers, in C.
#[test]
fn the_extension_of_xfrms_attributes() {
    use pfkey_rs::wire::{ExtensionType, MessageType, xfrm, xfrm::SadbXXfrm};
    let text = format!(
        "#include <stddef.h>\n#include <libpfkey.h>\nint a[sizeof(struct sadb_x_xfrm) == {} ? 1 : -1];\n\
         int b[offsetof(struct sadb_x_xfrm, sadb_x_xfrm_options) == {} ? 1 : -1];\n\
         int c[SADB_X_EXT_XFRM == {} && SADB_X_XFRM == {} ? 1 : -1];\n\
         int d[SADB_X_XFRM_PROPOSE == {} && SADB_X_XFRM_PARTIAL == {} ? 1 : -1];\n",
        size_of::<SadbXXfrm>(),
        std::mem::offset_of!(SadbXXfrm, options),
        ExtensionType::X_XFRM.0,
        MessageType::X_XFRM.0,
        xfrm::OPTION_PROPOSE,
        xfrm::OPTION_PARTIAL,
    );
    everywhere("h_xfrm", &text, &[]);
}

#[test]
fn the_structure_that_gathers_xfrms_attributes() {
    use pfkey_rs::capi::pfkey_xfrm;
    let text = format!(
        "#include <stddef.h>\n#include <libpfkey.h>\nint a[sizeof(struct pfkey_xfrm) == {} ? 1 : -1];\n\
         int b[offsetof(struct pfkey_xfrm, flags) == 4 && offsetof(struct pfkey_xfrm, attributes) == 8 ? 1 : -1];\n\
         struct pfkey_xfrm c = PFKEY_XFRM_INIT;\n",
        size_of::<pfkey_xfrm>(),
    );
    everywhere("h_gathered", &text, &[]);
}

#[test]
fn pfkey_rs_h_agrees_with_libpfkey_h() {
    everywhere("h_pfkey_rs", "#include <pfkey_rs.h>\n#include <pfkey_rs.h>\nint x;\n", &[]);
    everywhere("h_both", "#include <libpfkey.h>\n#include <pfkey_rs.h>\nint x;\n", &[]);
}

#[test]
fn what_old_clients_define_does_no_harm() {
    let text =
        "#include <sys/types.h>\n#include <net/pfkeyv2.h>\n#include PATH_IPSEC_H\n#include \"libpfkey.h\"\nint x;\n";
    let flags = [
        "-D__P(x)=x",
        "-DPATH_IPSEC_H=<netinet/ipsec.h>",
        "-DHAVE_POLICY_FWD",
        "-DHAVE_PFKEY_POLICY_PRIORITY",
        "-DHAVE_STDINT_H",
        "-DINET6",
    ];
    let dir = c::scratch("h_old");
    let source = dir.join("h.c");
    std::fs::write(&source, text).expect("a source file");
    for extra in [&[][..], &["-DHAVE_IPSEC_POLICY_T"], &["-std=gnu89"], &["-D_GNU_SOURCE"]] {
        let mut command = c::cc();
        command.args(["-Wall", "-Werror", "-fsyntax-only"]).args(flags).args(extra);
        command.arg("-I").arg(c::root().join("include")).arg("-I").arg(c::root().join("include/libpfkey_rs"));
        c::run(command.arg(&source));
    }
}

#[test]
fn sizes_offsets_and_types_are_libipsecs() {
    let dir = c::scratch("h_checks");
    let checks = c::root().join("c-tests/checks");
    for file in ["layout.c", "prototypes.c"] {
        let mut command = c::cc();
        command.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-c", "-o"]).arg(dir.join("o.o"));
        c::run(command.arg("-I").arg(c::root().join("include")).arg(checks.join(file)));
    }
}

#[test]
fn pfkey_rs_h_is_fresh() {
    let wanted = std::fs::read_to_string(c::root().join("Makefile")).expect("the Makefile");
    let version = wanted.lines().find_map(|l| l.strip_prefix("CBINDGEN_VERSION = ")).expect("a version");
    match Command::new("cbindgen").arg("--version").output() {
        Ok(output) if String::from_utf8_lossy(&output.stdout).trim() == format!("cbindgen {version}") => {}
        _ => {
            return eprintln!(
                "skipped: needs cbindgen {version} (cargo install cbindgen --version {version} --locked)"
            );
        }
    }
    let output =
        c::run(Command::new("cbindgen").current_dir(c::root()).args(["--quiet", "--config", "cbindgen.toml", "."]));
    let fresh = String::from_utf8(output.stdout).expect("text");
    let fresh = fresh.replace("// __cplusplus", "/* __cplusplus */").replace("// extern \"C\"", "/* extern \"C\" */");
    let committed = std::fs::read_to_string(c::root().join("include/pfkey_rs.h")).expect("the header");
    assert!(fresh == committed, "include/pfkey_rs.h is stale: make headers");
}
