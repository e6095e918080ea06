//! The shape of the source, read as text: who imports whom, what a pure module may not mention,
//! and how long a file may be. CONTRIBUTING.md says why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules of the library, lowest first. A module imports only from lower levels, or from
/// itself. Modules of one level do not import each other, save those in [`NEIGHBOURS`].
const LEVELS: &[&[&str]] = &[
    &["api", "x509", "telemetry", "wire"],
    &["identity"],
    &["decide"],
    &["sign"],
    &["watch"],
    &["observe"],
    &["apply"],
    &["source"],
    &["status"],
    &["controller"],
    &["runtime"],
    &["cli"],
    &["main"],
];

/// Imports within one level: (importer, imported).
const NEIGHBOURS: &[(&str, &str)] = &[("x509", "api")];

/// Modules that decide or translate, and words that only a module with a client, a clock or a
/// source of randomness would need.
const PURE: &[&str] = &["api", "x509", "identity", "decide"];
const IMPURE_WORDS: &[&str] = &[
    "wire::",
    "kube::Client",
    "kube::Api",
    "Client,",
    "tokio::",
    "std::fs",
    "std::env",
    "std::net",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "rand::",
    "SystemRandom",
];

/// Nobody holds more than this in the head at once.
const LONGEST_FILE: usize = 500;
const LONGEST_MAIN: usize = 40;

#[test]
fn a_module_imports_only_from_the_levels_below_it() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let importer = module_of(&file);
        if importer == "lib" {
            continue;
        }
        let level = level_of(&importer);
        for (line, imported) in imports(&code(&file)) {
            let allowed = imported == importer
                || level_of(&imported) < level
                || NEIGHBOURS.contains(&(importer.as_str(), imported.as_str()));
            if !allowed {
                wrong.push(format!("{}:{line}: {importer} imports {imported}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these imports go up the list of levels:\n{}", wrong.join("\n"));
}

#[test]
fn a_pure_module_mentions_no_client_clock_or_randomness() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        if !PURE.contains(&module_of(&file).as_str()) {
            continue;
        }
        for (number, line) in code(&file).lines().enumerate() {
            for word in IMPURE_WORDS.iter().filter(|word| mentions(line, word)) {
                wrong.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "these words have no place in a pure module:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "e2e"] {
        for file in sources(folder) {
            let length = text(&file).lines().count();
            if length > LONGEST_FILE {
                wrong.push(format!("{} has {length} lines", file.display()));
            }
        }
    }
    let main = text(&root().join("src/main.rs")).lines().count();
    if main > LONGEST_MAIN {
        wrong.push(format!("src/main.rs has {main} lines, and may have {LONGEST_MAIN}"));
    }
    assert!(
        wrong.is_empty(),
        "ask of each what second thing it does, and give that a file of its own:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_has_a_level() {
    let known: BTreeSet<&str> = LEVELS.iter().copied().flatten().copied().collect();
    let found: BTreeSet<String> =
        sources("src").iter().map(|file| module_of(file)).filter(|name| name != "lib").collect();
    let unknown: Vec<&String> =
        found.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "give these a place in LEVELS: {unknown:?}");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let found = |code: &str| imports(code).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(found("use crate::api::names;"), ["api"]);
    assert_eq!(found("let x = crate::decide::plan(y);"), ["decide"]);
    assert_eq!(
        found("use crate::{\n    api::names,\n    sign::{self, profile},\n};"),
        ["api", "sign"]
    );
    assert_eq!(found("use countersign::cli::Cli;"), ["cli"]);
    assert_eq!(found("pub(crate) fn x() {}"), [""; 0]);
}

/// The modules that a text names through `crate::` (or `countersign::`, as main.rs does), each
/// with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "countersign::"] {
        for (position, _) in code.match_indices(prefix) {
            let line = code[..position].lines().count().max(1);
            let rest = &code[position + prefix.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.push((line, first_word(rest)));
                continue;
            };
            found.extend(heads(group).into_iter().map(|head| (line, head)));
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The first names of `a::b, c::{d, e}, f}`.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut start = 0;
    let mut heads = Vec::new();
    for (position, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(first_word(group[start..position].trim()));
                start = position + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `line` has `word` where a word begins: `rand::` is not in `operand::`.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(position, _)| !line[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// A file's code: its lines, with comments and what follows `#[cfg(test)]` left empty or off.
fn code(file: &Path) -> String {
    let text = text(file);
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = product.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// `src/decide/checks.rs` and `src/decide.rs` both belong to `decide`.
fn module_of(file: &Path) -> String {
    let within = file.strip_prefix(root().join("src")).expect("a file of src");
    let first = within.components().next().expect("a file has a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn level_of(module: &str) -> usize {
    LEVELS.iter().position(|level| level.contains(&module)).unwrap_or(LEVELS.len())
}

fn sources(folder: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).expect("a folder of the source can be read");
        for entry in entries {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    files.sort();
    files
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
