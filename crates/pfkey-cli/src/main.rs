//! pfkey: the operator's command for PF_KEY.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pfkey_cli::main()
}
