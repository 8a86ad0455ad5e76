//! Tests of finding and reading files.

use std::fs;

use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, content).expect("file");
    }
    folder
}

fn ids(discovery: &Discovery) -> Vec<&str> {
    discovery.found.iter().map(|found| found.id.as_str()).collect()
}

fn read_one(
    name: &str,
    content: &[u8],
    settings: &LoadSettings,
) -> Result<Document, PipelineError> {
    let folder = folder(&[(name, content)]);
    let discovery = discover(&[folder.path().join(name)]).expect("found");
    read(&discovery.found[0], settings)
}

/// Scenario: a folder with ignored, hidden, foreign, and linked files.
/// Guarantees: known formats only, sorted, the rest counted by reason.
#[test]
fn a_folder_is_walked_in_order_and_respects_ignore_files() {
    let folder = folder(&[
        (".gitignore", b"build/\n*.tmp.md\n"),
        (".hidden/a.md", b"x"),
        ("b.md", b"x"),
        ("a/z.HTML", b"x"),
        ("a/c.rst", b"x"),
        ("README", b"x"),
        ("build/out.md", b"x"),
        ("x.tmp.md", b"x"),
        ("photo.png", b"x"),
        ("LICENSE", b"x"),
    ]);
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop.md")).expect("link");
    let discovery = discover(&[folder.path().to_owned()]).expect("walk");
    assert_eq!(ids(&discovery), ["README", "a/c.rst", "a/z.HTML", "b.md"]);
    assert_eq!(discovery.found[2].format, Format::Html);
    assert_eq!(discovery.skipped.get(&Skip::UnknownFormat), Some(&2));
    #[cfg(unix)]
    assert_eq!(discovery.skipped.get(&Skip::SymbolicLink), Some(&1));
    assert!(discovery.failures.is_empty());
}

/// Scenario: two roots with the same last component and a file of the same name, and a file.
/// Guarantees: ids never collide and do not depend on where the roots lie.
#[test]
fn several_roots_do_not_share_ids() {
    let folder = folder(&[("x/docs/a.md", b"1"), ("y/docs/a.md", b"2"), ("n.md", b"3")]);
    let root = |name: &str| folder.path().join(name);
    let discovery = discover(&[root("x/docs"), root("y/docs"), root("n.md")]).expect("walk");
    assert_eq!(ids(&discovery), ["docs/a.md", "docs~2/a.md", "n.md"]);
}

#[test]
fn a_single_file_is_a_root() {
    let folder = folder(&[("deep/a.md", b"x"), ("deep/main.py", b"print()")]);
    let discovery = discover(&[folder.path().join("deep/a.md")]).expect("found");
    assert_eq!(ids(&discovery), ["a.md"]);
    let named = discover(&[folder.path().join("deep/main.py")]).expect("found");
    assert_eq!(named.found[0].format, Format::Text);
}

#[test]
fn a_missing_root_is_not_found() {
    let error = discover(&["/nowhere/at/all".into()]).expect_err("missing");
    assert_eq!(error.error_type(), "not_found");
}

#[test]
fn a_byte_order_mark_is_not_text() {
    let document =
        read_one("a.txt", b"\xEF\xBB\xBFhello\r\n", &LoadSettings::default()).expect("text");
    assert_eq!(document.text, "hello\r\n");
    assert_eq!(document.bytes, 10);
    assert_eq!(document.digest, Digest::of(b"\xEF\xBB\xBFhello\r\n"));
}

/// Scenario: the files that folders of documents really contain.
/// Guarantees: a typed error with a reason that says what to do.
#[test]
fn files_that_are_not_text_say_why() {
    let small = LoadSettings { file_bytes_max: 8 };
    for (content, settings, expected) in [
        (&b"abc\0def"[..], LoadSettings::default(), "binary (NUL byte at offset 3)"),
        (b"caf\xE9 noir", LoadSettings::default(), "not UTF-8 (invalid byte at offset 3)"),
        (b"\xFF\xFEa\0", LoadSettings::default(), "UTF-16"),
        (b"123456789", small, "larger than load.file_bytes_max (8 bytes)"),
    ] {
        let error = read_one("a.txt", content, &settings).expect_err("not text");
        assert_eq!(error.error_type(), "not_text");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn html_is_reduced_and_markdown_is_kept() {
    let settings = LoadSettings::default();
    let html = read_one("a.html", b"<h1>A</h1><p>b</p>", &settings).expect("text");
    assert_eq!((html.text.as_str(), html.format), ("A\n\nb", Format::Html));
    let markdown = read_one("a.md", b"# A\n\n<b>b</b>", &settings).expect("text");
    assert_eq!(markdown.text, "# A\n\n<b>b</b>");
}

/// Scenario: a file vanishes between the walk and the read.
/// Guarantees: the error is that file's and names it.
#[test]
fn a_vanished_file_is_its_own_error() {
    let folder = folder(&[("a.md", b"x")]);
    let discovery = discover(&[folder.path().to_owned()]).expect("walk");
    fs::remove_file(folder.path().join("a.md")).expect("removed");
    let error = read(&discovery.found[0], &LoadSettings::default()).expect_err("vanished");
    assert_eq!(error.error_type(), "not_found");
}
