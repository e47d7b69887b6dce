//! docs/coverage.md and docs/security.md name tests, scenarios, files and commands that exist.
#![forbid(unsafe_code)]

#[path = "support/program.rs"]
mod program;

use program::program;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Whether a file has a test of a name: a function behind an attribute that is none but a test's.
fn has_test(file: &str, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(root().join(file)) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // proptest's tests have arguments.
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        line.starts_with(&head) && lines[..at].iter().rev().take_while(|l| l.starts_with("#[")).any(|l| *l == "#[test]")
    })
}

/// What stands between backquotes in a file of docs/, tables and text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn everything_named_exists() {
    let (tests, missing) = named("docs/coverage.md");
    assert!(tests > 100, "{tests} tests are named");
    assert!(missing.is_empty(), "named in docs/coverage.md and not there: {missing:#?}");
}

#[test]
fn everything_that_shows_a_statement_about_security_exists() {
    let (tests, missing) = named("docs/security.md");
    assert!(tests > 30, "{tests} tests are named");
    assert!(missing.is_empty(), "named in docs/security.md and not there: {missing:#?}");
}

/// What the documents of Debian's packages, and of the RPM spec's, name is in a package, too. So is the schema that pfkey(1) names.
#[test]
fn packages_have_the_documents_that_theirs_name() {
    // For those who have the source.
    let for_contributors = ["docs/coverage.md", "docs/design.md", "docs/releasing.md", "docs/testing.md"];
    let debian: String = std::fs::read_dir(root().join("debian"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|kind| kind == "docs"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let spec = read("packaging/libpfkey-rs.spec");
    for (recipe, text) in [("debian/*.docs", debian), ("packaging/libpfkey-rs.spec", spec)] {
        let has: BTreeSet<&str> = text.split_whitespace().filter(|word| word.starts_with("docs/")).collect();
        assert!(has.contains("docs/pfkey.schema.json"), "{recipe} lacks what pfkey(1) names");
        for document in has.iter().filter(|document| document.ends_with(".md")) {
            let text = read(document);
            let named = quoted(&text).into_iter().filter(|name| name.starts_with("docs/") && name.ends_with(".md"));
            let linked = text
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .filter(|to| !to.contains(['/', '#']));
            let wanted = named.map(str::to_owned).chain(linked.map(|to| format!("docs/{to}")));
            let missing: Vec<String> = wanted
                .filter(|name| !has.contains(name.as_str()) && !for_contributors.contains(&name.as_str()))
                .collect();
            assert!(missing.is_empty(), "{document} names what {recipe} lacks: {missing:?}");
        }
    }
}

/// `make` says what it can do, and names every word that `make install` takes.
#[test]
fn make_names_its_words() {
    let output = Command::new("make").arg("--no-print-directory").current_dir(root()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let places = read("Makefile");
    let places =
        places.lines().take_while(|line| !line.starts_with("KERNEL =")).filter_map(|line| line.split_once(" ="));
    let words: Vec<&str> =
        places.map(|(word, _)| word).filter(|word| !word.contains(['#', ' ']) && *word != "SHELL").collect();
    assert!(words.contains(&"LIBIPSEC_COMPAT") && words.contains(&"SETKEY"), "{words:?}");
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
    assert!(missing.is_empty(), "make does not name {missing:?}: {said}");
}

/// How many tests a file names, and everything that it names and that is not there.
fn named(file: &str) -> (usize, Vec<String>) {
    let text = read(file);
    let scenarios: BTreeSet<String> = read("tests/transcripts/7.2/afkey.txt")
        .lines()
        .filter_map(|line| line.strip_prefix("== "))
        .map(str::to_owned)
        .collect();
    let groups: BTreeSet<&str> =
        scenarios.iter().filter_map(|name| name.split_once('/')).map(|(group, _)| group).collect();
    let verdicts = read("tests/transcripts/7.2/verdicts.txt");
    let folders = ["src", "crates", "tests", "c-tests", "docs", "include", "preload", "man", "benches"];
    let (mut tests, mut missing) = (0, Vec::new());
    for name in quoted(&text) {
        let (first, rest) = name.split_once('/').unwrap_or((name, ""));
        let exists = if let Some((file, test)) = name.split_once(".rs::") {
            tests += 1;
            has_test(&format!("{file}.rs"), test)
        } else if !rest.is_empty() && folders.contains(&first) {
            root().join(name).exists()
        } else if !rest.is_empty() && groups.contains(first) && !name.contains(' ') {
            scenarios.contains(name)
        } else if let Some(case) = name.strip_prefix("verdicts: ") {
            verdicts.lines().any(|line| line.strip_prefix("== ") == Some(case))
        } else if let Some(command) = name.strip_prefix("pfkey ") {
            let arguments = command.split(' ');
            Command::new(program("pfkey")).args(arguments).arg("--help").output().unwrap().status.success()
        } else if let Some(target) = name.strip_prefix("make ") {
            read("Makefile").lines().any(|line| line.starts_with(&format!("{target}:")))
        } else if let Some(bench) = name.strip_prefix("cargo bench --bench ") {
            root().join(format!("benches/{bench}.rs")).exists()
        } else {
            continue;
        };
        if !exists {
            missing.push(name.to_owned());
        }
    }
    (tests, missing)
}

/// Every row of a file's tables says what shows it, or in these words that nothing does.
fn each_row_is_shown(file: &str, open: Option<&str>) {
    let text = read(file);
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[0].starts_with("| ") && !pair[1].starts_with("|---")) {
        let cells: Vec<&str> = pair[0].trim_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if open == Some(last) {
            println!("skipped: nothing shows yet: {}", cells[0]);
        } else {
            assert!(last.contains('`'), "nothing shows: {}", pair[0]);
        }
    }
}

#[test]
fn every_row_is_shown() {
    each_row_is_shown("docs/coverage.md", None);
    each_row_is_shown("docs/security.md", Some("no test yet"));
}

/// The table of XFRM's attributes is the code's: name, word, first kernel.
#[test]
fn every_attribute_has_a_row() {
    use pfkey_rs::wire::xfrm::{ATTRIBUTES, Role};
    let text = read("docs/coverage.md");
    let section =
        text.split("\n## XFRM's attributes\n").nth(1).and_then(|rest| rest.split("\n| beside").next()).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let written: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let written: Vec<_> = written.iter().map(|row| (row[0], row[1].trim_matches('`'), row[3])).collect();
    let word = |role, name| if role == Role::Counter { "–" } else { name };
    let known: Vec<_> = ATTRIBUTES.iter().map(|row| (row.c_name, word(row.role, row.name), row.since)).collect();
    assert_eq!(written, known);
}

/// The functions of C and the methods of Rust that stand in both tables exist, and no setter for C is left out.
#[test]
fn what_the_tables_of_attributes_name_in_c_and_rust_exists() {
    let text = read("docs/coverage.md");
    let section =
        text.split("\n## XFRM's attributes\n").nth(1).and_then(|rest| rest.split("\nNot there").next()).unwrap();
    let exports: Vec<String> = read("exports.txt").lines().map(str::to_owned).collect();
    let methods =
        ["crates/pfkey-model/src/xfrm.rs", "crates/pfkey-model/src/xfrm/typed.rs", "crates/pfkey/src/client.rs"];
    let methods = methods.map(read).concat() + &read("crates/pfkey/src/error.rs");
    // Methods, and those that a macro makes of two names.
    let words: BTreeSet<&str> = methods.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let named_in = |column: usize, of: usize| -> BTreeSet<&str> {
        let rows = section.lines().filter(|line| line.starts_with("| "));
        let rows = rows.map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
        rows.filter(|cells| cells.len() == of).flat_map(|cells| quoted(cells[column])).collect()
    };
    let c: BTreeSet<&str> = &named_in(4, 10) | &named_in(2, 5);
    let rust: BTreeSet<&str> = &named_in(5, 10) | &named_in(3, 5);
    let functions: Vec<&&str> =
        c.iter().filter(|name| name.starts_with("pfkey_") || name.starts_with("ipsec_")).collect();
    assert!(functions.len() > 20 && rust.len() > 30, "{functions:?} {rust:?}");
    let missing: Vec<_> = functions.iter().filter(|name| !exports.iter().any(|export| export == **name)).collect();
    assert!(missing.is_empty(), "no functions: {missing:?}");
    let missing: Vec<_> = rust.iter().filter(|name| !name.starts_with("PFKEY_") && !words.contains(**name)).collect();
    assert!(missing.is_empty(), "no methods: {missing:?}");
    let setters = exports.iter().filter(|name| name.starts_with("pfkey_xfrm_"));
    let left_out: Vec<_> = setters.filter(|name| !c.contains(name.as_str())).collect();
    assert!(left_out.is_empty(), "in no table: {left_out:?}");
}
