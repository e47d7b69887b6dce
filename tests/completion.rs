//! The completion scripts in the shells that they are for, as `make install` puts them: keys are typed into a terminal.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/tmux.rs"]
mod tmux;

use std::path::Path;
use std::process::Command;

use tmux::Terminal;

/// What is typed before the tabulator, and what stands there behind it.
const TYPED: &[(&str, &str)] = &[
    ("pfkey mon", "pfkey monitor"),
    ("pfkey dump --sta", "pfkey dump --state"),
    ("pfkey dump es", "pfkey dump esp"),
    ("pfkey spd --direction f", "pfkey spd --direction fwd"),
    ("pfkey load --rep", "pfkey load --replace"),
    ("pfkey policy fl", "pfkey policy flush"),
    ("pfkey --js", "pfkey --json"),
    ("pfkey load exa", "pfkey load example.conf"),
    ("pfkey completion fi", "pfkey completion fish"),
];

/// Puts the script of a shell, and what else it reads, into a directory that is its home; types there.
fn try_in(shell: &str, script: &str, files: &[(&str, &str)], start: &str) {
    if Command::new(shell).arg("--version").output().is_err() {
        return println!("skipped: needs {shell}");
    }
    let home = c::scratch(&format!("completion_{shell}"));
    let write = |path: &str, text: &[u8]| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let pfkey = c::program("pfkey");
    let printed = Command::new(pfkey).args(["completion", shell]).output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    write(script, &printed.stdout);
    files.iter().for_each(|(path, text)| write(path, text.as_bytes()));
    write("example.conf", b"");
    let programs = Path::new(pfkey).parent().unwrap().display();
    let home = home.display();
    let command = format!(
        "cd {home} && exec env -i HOME={home} ZDOTDIR={home} XDG_DATA_HOME={home}/share XDG_CONFIG_HOME={home}/config \
         TERM=screen LC_ALL=C.UTF-8 PATH={programs}:/usr/local/bin:/usr/bin:/bin {start}"
    );
    let Some(terminal) = Terminal::start(&format!("completion_{shell}_tmux"), &command) else { return };
    terminal.wait_for("ready>");
    for (typed, completed) in TYPED {
        terminal.keys(&["-l", typed]);
        // What is typed behind it shows that a shell has not only suggested it.
        terminal.keys(&["Tab"]);
        terminal.keys(&["-l", "X"]);
        // An option's value comes after a blank, or after '='.
        let behind = [" X", "=X"].map(|end| format!("ready> {completed}{end}"));
        terminal.wait(|| behind.iter().any(|line| terminal.screen().contains(line)).then_some(()), completed);
        terminal.keys(&["C-u"]);
    }
}

#[test]
fn bash() {
    const COMPLETION: &str = "/usr/share/bash-completion/bash_completion";
    if !Path::new(COMPLETION).exists() {
        return println!("skipped: needs bash-completion");
    }
    let rc = format!("PS1='ready> '\n. {COMPLETION}\n");
    try_in("bash", "share/bash-completion/completions/pfkey", &[("rc", &rc)], "bash --rcfile rc -i");
}

#[test]
fn zsh() {
    let rc = "PS1='ready> '\nfpath=(~/functions $fpath)\nautoload -Uz compinit\ncompinit -u -D\n";
    try_in("zsh", "functions/_pfkey", &[(".zshrc", rc)], "zsh -i");
}

#[test]
fn fish() {
    let rc =
        "function fish_prompt; echo -n 'ready> '; end\nset -g fish_greeting\nset -g fish_autosuggestion_enabled 0\n";
    try_in("fish", "config/fish/completions/pfkey.fish", &[("config/fish/config.fish", rc)], "fish -i");
}
