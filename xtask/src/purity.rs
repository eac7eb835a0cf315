//! The core's source must not name what reads the world.
//!
//! Why besides clippy's bans: clippy looks at calls that are compiled, this looks at words. It also sees code behind
//! a feature or a platform that the build at hand leaves out, and a lint that somebody silenced.
//!
//! Rules: comments, strings and character literals do not count; a word counts only where an identifier begins, so
//! `MonoInstant::now` is not `Instant::now`. Tests count: a core test that needs a clock tests the wrong thing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// What must not be named, with what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime", "take wall time as an argument"),
    ("RandomState", "use a hasher with a seed, or an ordered map"),
    ("Rng::new()", "let the caller seed the generator"),
    ("std::env", "take the value as an argument"),
    ("std::fs", "leave files to the shell"),
    ("std::net", "leave sockets to the shell"),
    ("std::process", "leave processes to the shell"),
    ("std::thread", "leave threads to the shell"),
    ("thread_rng", "let the caller seed the generator"),
    ("tokio::", "leave tasks to the shell"),
];

/// Every banned word below a folder, one sentence each with file and line.
pub(crate) fn violations(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut problems = Vec::new();
    for file in rust_files(folder)? {
        let text = fs::read_to_string(&file).map_err(|error| cannot_read(&file, &error))?;
        let shown = file.strip_prefix(crate::command::root()).unwrap_or(&file).display().to_string();
        problems.extend(scan(&shown, &text));
    }
    Ok(problems)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| cannot_read(folder, &error))?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

/// Banned words of one file.
fn scan(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut problems = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (word, instead) in BANNED {
            if names(line, word) {
                problems.push(format!("{file}:{} names `{word}`: {instead}", number + 1));
            }
        }
    }
    problems
}

/// Whether `word` occurs in `line` where an identifier begins.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// The text with comments, strings and character literals blanked; line breaks stay, so line numbers hold.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_identifier = false;
    while let Some(first) = rest.chars().next() {
        let skipped =
            if after_identifier && first != '"' && first != '/' { 0 } else { literal_or_comment(rest) };
        let taken = if skipped == 0 { first.len_utf8() } else { skipped };
        let (piece, tail) = rest.split_at(taken);
        if skipped == 0 {
            code.push(first);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        // `r` in `for` or `b` in `b` the variable do not open a literal.
        after_identifier = skipped == 0 && (first.is_alphanumeric() || first == '_');
        rest = tail;
    }
    code
}

/// Length in bytes of the comment or literal that `text` begins with; 0 if it begins with code.
fn literal_or_comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if prefix > 1 {
        return 0;
    }
    let length = if unprefixed.starts_with('"') {
        quoted(unprefixed, '"')
    } else if unprefixed.starts_with('r') {
        raw_string(unprefixed)
    } else if unprefixed.starts_with('\'') {
        character(unprefixed)
    } else {
        0
    };
    if length == 0 { 0 } else { prefix + length }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// A literal that ends at the first `end` that no backslash escapes.
fn quoted(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == end {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#` and so on; 0 for a raw identifier such as `r#type` and for any other word.
fn raw_string(text: &str) -> usize {
    let after_r = &text[1..];
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let Some(body) = after_r[hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let opened = 1 + hashes + 1;
    body.find(&end).map_or(text.len(), |at| opened + at + end.len())
}

/// A character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str) -> Vec<usize> {
        scan("x.rs", text)
            .iter()
            .map(|problem| problem.split([':', ' ']).nth(1).unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn code_that_reads_the_world_is_found_with_its_line() {
        let text = "fn f() {\n    let t = std::time::Instant::now();\n    let e = std::env::var(\"X\");\n}\n";
        assert_eq!(lines_of(text), [2, 3]);
        let only = scan("crates/core/src/a.rs", "fn f() { Instant::now(); }");
        assert_eq!(only, ["crates/core/src/a.rs:1 names `Instant::now`: take `now` as an argument"]);
    }

    #[test]
    fn comments_and_literals_do_not_count() {
        let text = r##"
//! Never call Instant::now here.
/* tokio:: /* nested SystemTime */ still tokio:: */
const A: &str = "Instant::now \" tokio::";
const B: &str = r#"SystemTime " tokio::"#;
const C: &[u8] = b"std::env";
const D: char = '"'; // a quote that opens nothing
const E: char = '\''; // tokio::
"##;
        assert_eq!(lines_of(text), Vec::<usize>::new());
    }

    #[test]
    fn code_after_literals_still_counts() {
        let text = "let q = '\"'; SystemTime\nlet s = \"\\\\\"; SystemTime\nlet r = r##\"\"# \"##; SystemTime\nlet l: &'a str = x; SystemTime\n/* */ SystemTime\nlet c = b'\\''; SystemTime\n";
        assert_eq!(lines_of(text), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn line_numbers_hold_behind_long_comments_and_strings() {
        assert_eq!(lines_of("/*\n\n*/\nlet a = \"\n\n\";\nSystemTime\n"), [7]);
    }

    #[test]
    fn a_longer_identifier_is_another_word() {
        assert_eq!(
            lines_of("MonoInstant::now(); my_tokio::x(); fastrand::Rng::new(7);"),
            Vec::<usize>::new()
        );
        assert_eq!(lines_of("let r#type = for_r; tokio::spawn(x);"), [1]);
    }

    #[test]
    fn files_are_found_in_sub_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pace")).unwrap();
        fs::write(folder.path().join("pace/gate.rs"), "use tokio::sync;").unwrap();
        fs::write(folder.path().join("notes.txt"), "tokio::").unwrap();
        let found = violations(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("gate.rs:1"), "{found:?}");
    }
}
