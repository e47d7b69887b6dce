//! `metrics`: numbers about SAs and policies as OpenMetrics text, once or over HTTP.

mod families;
mod http;
mod serve;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pfkey_socket::report::Report;
use pfkey_socket::{Backend, SERVICE_PATH};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::output::Out;
use crate::overview::Snapshot;
use crate::private_file::publish;
pub use families::Wanted;
use families::{Heard, Measured};
pub use serve::{address, serve};

/// Prints them, or writes a file that is whole whenever somebody reads it.
pub fn print(wanted: Wanted, output: Option<&Path>) -> Result<(), Failure> {
    let (text, _) = measure(&mut Channel::open()?, &service_path()?, wanted, None)?;
    let Some(path) = output else {
        let mut out = Out::new();
        out.write_all(text.as_bytes())?;
        return Ok(out.flush()?);
    };
    // A collector is another user.
    publish(path, text.as_bytes())
}

/// Where the machine's pfkeyd listens.
fn service_path() -> Result<PathBuf, Failure> {
    Ok(match Backend::from_environment()? {
        Backend::Service(path) => path.to_path_buf(),
        _ => PathBuf::from(SERVICE_PATH),
    })
}

/// Reads everything and writes the text; also how many SAs and policies there are.
fn measure(
    channel: &mut Channel,
    service: &Path,
    wanted: Wanted,
    heard: Option<Heard>,
) -> Result<(String, usize), Failure> {
    let began = Instant::now();
    let snapshot = Snapshot::read(channel)?;
    let service: Option<Report> = pfkey_socket::ask(service).ok();
    let measured = Measured { snapshot: &snapshot, service: service.as_ref(), heard, took: began.elapsed() };
    Ok((families::text(&measured, wanted), snapshot.entries()))
}
