//! The terminal: taken, and given back on every way out.

use std::io::{self, BufWriter, IsTerminal as _, Stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Once;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{pipe2, read, write};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Hide;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode};

/// What `LeaveAlternateScreen` and `Show` write, for who must not wait for the lock of standard output.
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h";
/// How long a terminal that takes nothing is waited for, in milliseconds.
const PATIENCE: u16 = 500;
/// A whole frame of a large terminal.
const FRAME: usize = 64 << 10;

/// The terminal while it is ours.
pub struct Screen {
    /// What is drawn on. Standard output alone would write a frame in pieces of 1 KiB, and half of one would be seen.
    pub terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    /// Something can be read here when the program goes on after it was stopped.
    resumed: OwnedFd,
}

impl Screen {
    /// Takes the terminal. From now on signals that end or stop the program give it back first: a thread waits for them, so that
    /// neither a terminal that takes nothing nor a key engine that does not answer keeps the program from ending.
    pub fn take() -> io::Result<Self> {
        let (resumed, resume) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let signals: SigSet =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGCONT]
                .into_iter()
                .collect();
        signals.thread_block()?;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                before(panic);
            }));
        });
        enter()?;
        // It gives it back if there is no thread to do it.
        let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME, io::stdout()));
        let screen = Self { terminal: Terminal::new(backend)?, resumed };
        std::thread::Builder::new().spawn(move || wait(&signals, &resume))?;
        Ok(screen)
    }

    /// A descriptor that is readable once the program goes on after it was stopped.
    pub fn resumed(&self) -> impl AsFd + '_ {
        self.resumed.as_fd()
    }

    /// Whether that has happened: then everything has to be drawn again.
    pub fn has_resumed(&mut self) -> io::Result<bool> {
        let mut any = false;
        while read(&self.resumed, &mut [0; 16]).is_ok_and(|len| len > 0) {
            any = true;
        }
        if any {
            self.terminal.clear()?;
        }
        Ok(any)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

/// Gives the terminal back, whoever holds the lock of standard output, and without waiting for long.
fn leave() {
    let _ = disable_raw_mode();
    let stdout = io::stdout();
    let fd = stdout.as_fd();
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::from(PATIENCE)).is_ok_and(|ready| ready > 0) {
        let _ = write(fd, LEAVE);
    }
}

/// Waits for signals, and does what they would do, with the terminal given back.
fn wait(signals: &SigSet, resume: &OwnedFd) {
    // The main thread is told of another size.
    let _ = SigSet::from(Signal::SIGWINCH).thread_block();
    loop {
        match signals.wait() {
            Ok(Signal::SIGTSTP) => {
                leave();
                let _ = raise(Signal::SIGSTOP);
            }
            Ok(Signal::SIGCONT) => {
                let _ = enter();
                let _ = write(resume, &[0]);
            }
            Ok(signal) => {
                leave();
                // Its own way: whoever started us sees which signal it was.
                let _ = SigSet::from(signal).thread_unblock();
                let _ = raise(signal);
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Stops the program as the shell's job: a terminal in raw mode sends no signal for Ctrl-Z.
pub fn stop() {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTSTP);
}

/// Whether somebody looks and types.
pub fn is_there() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}
