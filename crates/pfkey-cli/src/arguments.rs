//! What other users see of this process's command line (`/proc/PID/cmdline`, ps).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Writes over the arguments' bytes, where they were handed over. Before this runs, they are seen: who has real keys
/// gives them in a file or on standard input.
pub fn hide() {
    // Without /proc nobody sees them there either.
    let _ = overwrite();
}

fn overwrite() -> io::Result<()> {
    let mut stat = String::new();
    File::open("/proc/self/stat")?.read_to_string(&mut stat)?;
    // Fields 48 and 49 of proc_pid_stat(5); the name in parentheses is the second and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ends = fields.split_ascii_whitespace().skip(45).map(str::parse::<u64>);
    let (Some(Ok(start)), Some(Ok(end))) = (ends.next(), ends.next()) else { return Ok(()) };
    let name = std::env::args_os().next().map_or(0, |name| name.len() as u64 + 1);
    let len = end.saturating_sub(start).saturating_sub(name);
    let blanks = vec![0; usize::try_from(len).unwrap_or(0)];
    OpenOptions::new().write(true).open("/proc/self/mem")?.write_all_at(&blanks, start + name)
}
