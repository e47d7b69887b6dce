//! `completion`: scripts by which shells complete words.

use std::io::Write as _;

use clap::Command;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output::Out;

/// Prints the script of a shell.
pub fn completion(out: &mut Out, shell: Shell, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    out.write_all(&script)?;
    if shell == Shell::Fish {
        out.write_all(values(&command).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// The values that words without an option can have, which clap's script for fish leaves out.
fn values(command: &Command) -> String {
    let name = command.get_name();
    let mut lines = String::new();
    for one in command.get_subcommands() {
        for argument in one.get_positionals() {
            let values = argument.get_possible_values();
            let values: Vec<&str> = values.iter().filter(|v| !v.is_hide_set()).map(|v| v.get_name()).collect();
            if !values.is_empty() {
                let (when, values) = (one.get_name(), values.join(" "));
                let line =
                    format!("complete -c {name} -n \"__fish_{name}_using_subcommand {when}\" -f -a \"{values}\"\n");
                lines.push_str(&line);
            }
        }
    }
    lines
}
