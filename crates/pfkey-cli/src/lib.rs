//! What the operator's command `pfkey` does. The program is [`main`]; nothing else is for other programs.
//!
//! | file | subcommands |
//! |---|---|
//! | `show` | dump, spd, get, policy get |
//! | `load`, `execute`, `undo`, `plan`, `unused`, `setkey/` | load, add, delete, flush, policy add and delete |
//! | `filter` | which SAs and policies dump, spd, monitor, flush and delete mean |
//! | `save`, `private_file` | save |
//! | `monitor` | monitor |
//! | `metrics/` | metrics |
//! | `graph/` | graph |
//! | `top/` | top |
//! | `explain` | explain |
//! | `types`, `algorithms`, `doctor/` | the same |
//! | `setkey_command/` | what it does under its second name, `setkey` |
//! | `model/` | SAs and policies: from messages, to messages, as text |
//! | `overview/` | SAs without keys, policies and what serves them, for those who look at all at once |
//! | `arguments` | takes keys out of what other users see of the command line |
#![forbid(unsafe_code)]

mod algorithms;
mod arguments;
mod carry;
mod channel;
mod completion;
mod doctor;
mod execute;
#[doc(hidden)]
pub mod explain;
mod failure;
mod filter;
mod graph;
mod json;
mod load;
mod meaning;
mod metrics;
#[doc(hidden)]
pub mod model;
mod monitor;
mod output;
mod overview;
mod plan;
mod private_file;
mod save;
mod script;
#[doc(hidden)]
pub mod setkey;
mod setkey_command;
mod show;
mod state;
mod tell;
mod top;
mod types;
mod undo;
mod unused;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use pfkey_wire::{MessageType, PolicyDirection, SaType};

use channel::Channel;
use failure::Failure;
use filter::Filter;
use output::{Out, View};

const AFTER_HELP: &str = "\
Environment: PFKEY_BACKEND chooses what serves PF_KEY: auto, afkey, service, private, embedded or unix:PATH. See pfkey(1) for
PFKEY_ALGORITHMS, PFKEY_XFRM and PFKEYD.

Exit status: 0 done; 1 refused by the key engine, or a system call failed; 2 wrong arguments or a file with errors,
nothing was sent; 3 no PF_KEY backend.";

/// Show and change IPsec SAs and policies over PF_KEY
#[derive(Parser)]
#[command(name = "pfkey", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Show keys, which are otherwise hidden
    #[arg(long, global = true)]
    show_keys: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Esp,
    Ah,
    Ipcomp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Direction {
    In,
    Out,
    Fwd,
}

#[derive(Subcommand)]
enum Command {
    /// List SAs
    Dump {
        /// Only those of this protocol
        protocol: Option<Protocol>,
        #[command(flatten)]
        chosen: show::Chosen,
    },
    /// List policies
    Spd {
        /// Only those of this direction
        #[arg(long)]
        direction: Option<Direction>,
        /// Also those of sockets
        #[arg(long)]
        sockets: bool,
        #[command(flatten)]
        chosen: show::Chosen,
    },
    /// Add an SA: what 'add' takes in a file, e.g. SRC DST esp 0x1000 -m tunnel -E aes-cbc 0x…
    Add {
        /// SRC DST PROTOCOL SPI, options and algorithms; other users may see keys here for a moment: prefer 'load -'
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Show an SA
    Get {
        /// SRC DST PROTOCOL SPI
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Remove an SA, or those that match
    Delete {
        /// Every SA between the two addresses: SRC DST PROTOCOL
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
        /// SRC DST PROTOCOL SPI
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Remove all SAs, or those that match
    Flush {
        /// Only those of this protocol
        protocol: Option<Protocol>,
        #[command(flatten)]
        filter: Filter,
    },
    /// Add, show or remove policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show every PF_KEY message as it happens
    Monitor {
        /// End after this many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        #[command(flatten)]
        filter: Filter,
    },
    /// Watch SAs, grouped by peer and policy: rates, limits, failures and events
    Top {
        /// Print one frame and end; with --json a line for each group and SA
        #[arg(long)]
        once: bool,
        /// Time between two refreshes; with many SAs it is longer
        #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
        interval: std::time::Duration,
    },
    /// Print numbers about SAs and policies as OpenMetrics text
    Metrics {
        /// Serve them over HTTP until interrupted, on PORT (of 127.0.0.1), ADDRESS:PORT or [ADDRESS]:PORT
        #[arg(long, value_name = "ADDRESS", value_parser = metrics::address, conflicts_with = "output")]
        listen: Option<std::net::SocketAddr>,
        /// Write to this file, which is replaced as a whole, instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Also print numbers of single SAs
        #[arg(long)]
        per_sa: bool,
        /// At most this many policies (and SAs, with --per-sa) have numbers of their own
        #[arg(long, default_value_t = 1000, value_name = "N")]
        most: usize,
    },
    /// Show who talks to whom: gateways, networks, the SAs between them, and policies whose SAs are missing
    Graph {
        /// As a tree, even if standard output is no terminal
        #[arg(long, conflicts_with_all = ["dot", "svg"])]
        text: bool,
        /// In Graphviz's language, even on a terminal
        #[arg(long, conflicts_with = "svg")]
        dot: bool,
        /// As a picture, in this file or on standard output; needs no Graphviz
        #[arg(long, value_name = "FILE")]
        svg: Option<Option<PathBuf>>,
        /// At most this many lines between addresses: first those that lack an SA, then the busiest
        #[arg(long, default_value_t = 100, value_name = "N")]
        most: usize,
    },
    /// Carry out the commands of a file in setkey's language
    Load {
        /// A file, or a directory, whose *.conf are loaded in the order of their names; - is standard input
        file: PathBuf,
        /// Only read it and print errors and warnings
        #[arg(short = 'n', long, group = "way")]
        check: bool,
        /// If the engine refuses a command, undo those before it
        #[arg(long, group = "way")]
        all_or_nothing: bool,
        /// Show what would change if SAs and policies became those of the file
        #[arg(long, group = "way")]
        diff: bool,
        /// Make SAs and policies those of the file, never leaving a gap between policies; all or nothing
        #[arg(long, group = "way")]
        replace: bool,
        /// Make no copies of inbound policies for forwarded packets
        #[arg(short, long)]
        kernel: bool,
    },
    /// Print SAs (with their keys) and policies as a file for 'load'
    Save {
        /// Write to this file, which only its owner can read, instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Exit status 0 even if the file cannot express everything
        #[arg(long)]
        lossy: bool,
    },
    /// Say which policy and SAs an outbound packet takes and what MTU is left, or why it is dropped
    Explain {
        /// SRC to DST [PROTOCOL] [sport N] [dport N] [mark N] [if_id N] [dev NAME] [cpu N] [uid N]; "to" may be an arrow (→), or be left out
        #[arg(required = true)]
        words: Vec<String>,
        /// Ask a file that 'save' made or 'load' reads, instead of the live SAs and policies
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// MTU of the path in bytes
        #[arg(long, default_value_t = 1500, value_name = "N")]
        mtu: u32,
    },
    /// List messages, extensions, SA types and flags: their numbers and what they are for
    Types {
        /// Whose numbers
        #[arg(long, default_value = "linux")]
        profile: types::Dialect,
        /// Show those of KLIPS beside them (for klips those of Linux)
        #[arg(long)]
        diff: bool,
    },
    /// List the key engine's algorithms
    Algorithms,
    /// Test what works on this machine, for which daemons, and what the kernel lacks
    Doctor(doctor::Options),
    /// Print a completion script
    Completion {
        /// For this shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Add a policy: what 'spdadd' takes in a file, e.g. 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/transport//require
    Add {
        /// Make no copy of an inbound policy for forwarded packets
        #[arg(long)]
        kernel: bool,
        /// SRC DST UPPER -P POLICY
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Show the policy of a number
    Get {
        /// Its number
        id: u32,
    },
    /// Remove a policy by its number, or by what 'spddelete' takes
    Delete {
        /// Remove no copy for forwarded packets
        #[arg(long)]
        kernel: bool,
        /// ID, or SRC DST UPPER -P DIRECTION
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Remove all policies, or those that match
    Flush {
        #[command(flatten)]
        filter: Filter,
    },
}

fn satype(protocol: Option<Protocol>) -> SaType {
    match protocol {
        None => SaType::UNSPEC,
        Some(Protocol::Esp) => SaType::ESP,
        Some(Protocol::Ah) => SaType::AH,
        Some(Protocol::Ipcomp) => SaType::X_IPCOMP,
    }
}

/// A time that somebody can wait for.
fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(std::time::Duration::from_secs_f64).ok_or_else(|| "expected seconds from 0.1 to 3600".to_owned())
}

/// The command with this process's arguments.
pub fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|name| Path::new(name).file_name());
    if name.is_some_and(|name| name == setkey_command::NAME) {
        words.remove(0);
        return setkey_command::main(&words);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            tell::tell_usage(&error);
            return ExitCode::from(failure::USAGE);
        }
        // --help, --version
        Err(error) => error.exit(),
    };
    match run(cli) {
        Ok(()) => ExitCode::from(failure::OK),
        // Whoever read our output has enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(failure::OK),
        Err(failure) => {
            let advice =
                if failure.status() == failure::NO_BACKEND { "\n  'pfkey doctor' says what is missing" } else { "" };
            tell::tell(format_args!("{failure}{advice}"));
            ExitCode::from(failure.status())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let view = View::new(cli.json, cli.show_keys);
    let mut out = Out::new();
    match cli.command {
        Command::Dump { protocol, chosen } => {
            show::some_sas(&mut Channel::open()?, &mut out, view, satype(protocol), &chosen)
        }
        Command::Spd { direction, sockets, chosen } => {
            let direction = direction.map(|direction| match direction {
                Direction::In => PolicyDirection::INBOUND,
                Direction::Out => PolicyDirection::OUTBOUND,
                Direction::Fwd => PolicyDirection::FWD,
            });
            show::some_policies(&mut Channel::open()?, &mut out, view, (direction, sockets), &chosen)
        }
        Command::Add { words } => {
            arguments::hide();
            load::words(view, "add", words, false)
        }
        Command::Get { words } => load::words(view, "get", words, false),
        Command::Delete { all, filter, words } => match (words.is_empty(), filter.is_empty()) {
            (false, true) => load::words(view, if all { "deleteall" } else { "delete" }, words, false),
            (true, false) if !all => match execute::delete_some(&mut Channel::open()?, SaType::UNSPEC, &filter)? {
                0 => Err(Failure::Told("delete: no SA matches".to_owned())),
                _ => Ok(()),
            },
            _ => Err(Failure::Usage(
                "delete: expected SRC DST PROTOCOL SPI, or options that say which SAs (--src, --spi, …)".to_owned(),
            )),
        },
        Command::Flush { protocol, filter } if filter.is_empty() => {
            Channel::open()?.header_request(MessageType::FLUSH, satype(protocol))
        }
        Command::Flush { protocol, filter } => {
            execute::delete_some(&mut Channel::open()?, satype(protocol), &filter).map(|_| ())
        }
        Command::Policy(PolicyCommand::Add { kernel, words }) => load::words(view, "spdadd", words, kernel),
        Command::Policy(PolicyCommand::Get { id }) => show::policy(&mut Channel::open()?, &mut out, view, id),
        Command::Policy(PolicyCommand::Delete { kernel, words }) => match words.as_slice() {
            [id] => {
                let id =
                    id.parse().map_err(|_| Failure::Usage(format!("policy delete {id}: not a policy's number")))?;
                show::policy_request(&mut Channel::open()?, MessageType::X_SPDDELETE2, id).map(|_| ())
            }
            _ => load::words(view, "spddelete", words, kernel),
        },
        Command::Policy(PolicyCommand::Flush { filter }) if filter.is_empty() => {
            Channel::open()?.header_request(MessageType::X_SPDFLUSH, SaType::UNSPEC)
        }
        Command::Policy(PolicyCommand::Flush { filter }) => {
            execute::delete_some_policies(&mut Channel::open()?, &filter)
        }
        Command::Monitor { count, filter } => monitor::monitor(view, count, &filter),
        Command::Metrics { .. } if cli.json => Err(Failure::Usage("metrics are no JSON".to_owned())),
        Command::Metrics { listen, output, per_sa, most } => {
            let wanted = metrics::Wanted { per_sa, most };
            listen.map_or_else(|| metrics::print(wanted, output.as_deref()), |address| metrics::serve(wanted, address))
        }
        Command::Top { once, interval } => top::top(view, top::Options { once, interval }),
        Command::Graph { text, dot, svg, most } => {
            let shown = match svg {
                Some(path) => graph::As::Svg(path),
                None if text => graph::As::Text,
                None if dot => graph::As::Dot,
                None => graph::As::WhatFits,
            };
            graph::graph(view, &shown, most)
        }
        Command::Load { file, check, all_or_nothing, diff, replace, kernel } => {
            let ways = [
                (check, load::Way::Check),
                (all_or_nothing, load::Way::AllOrNothing),
                (diff, load::Way::Diff),
                (replace, load::Way::Replace),
            ];
            let way = ways.into_iter().find_map(|(said, way)| said.then_some(way)).unwrap_or_default();
            load::file(view, &file, load::Options { way, kernel })
        }
        Command::Save { output, lossy } => save::save(output.as_deref(), lossy),
        Command::Explain { words, file, mtu } => {
            explain::explain(view, &explain::Options { words: &words, file: file.as_deref(), mtu })
        }
        Command::Types { profile, diff: true } => types::diff(view, profile),
        Command::Types { profile, diff: false } => types::types(view, profile),
        Command::Algorithms => algorithms::algorithms(view),
        Command::Doctor(options) => doctor::doctor(view, &options),
        Command::Completion { shell } => completion::completion(&mut out, shell, Cli::command()),
    }
}
