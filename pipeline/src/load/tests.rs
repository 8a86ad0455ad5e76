//! Tests of finding and reading files.

use std::fs;

use tempfile::TempDir;

use retake_schemas::settings::LoadFormat;

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
    let discovery = discover(&[folder.path().join(name)], &LoadSettings::default()).expect("found");
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
    let discovery = discover(&[folder.path().to_owned()], &LoadSettings::default()).expect("walk");
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
    let discovery =
        discover(&[root("x/docs"), root("y/docs"), root("n.md")], &LoadSettings::default())
            .expect("walk");
    assert_eq!(ids(&discovery), ["docs/a.md", "docs~2/a.md", "n.md"]);
}

#[test]
fn a_single_file_is_a_root() {
    let folder = folder(&[("deep/a.md", b"x"), ("deep/main.py", b"print()")]);
    let discovery =
        discover(&[folder.path().join("deep/a.md")], &LoadSettings::default()).expect("found");
    assert_eq!(ids(&discovery), ["a.md"]);
    let named =
        discover(&[folder.path().join("deep/main.py")], &LoadSettings::default()).expect("found");
    assert_eq!(named.found[0].format, Format::Code);
    let odd = folder.path().join("deep/notes.xyz");
    fs::write(&odd, "x").expect("file");
    let odd = discover(&[odd], &LoadSettings::default()).expect("found");
    assert_eq!(odd.found[0].format, Format::Text);
}

/// Scenario: a folder with documents, code, records and a PDF.
/// Guarantees: what is not asked for is left out and counted; what is asked for is found.
#[test]
fn folders_give_the_formats_that_are_asked_for() {
    let folder = folder(&[
        ("a.md", b"x"),
        ("main.rs", b"fn main() {}"),
        ("records.jsonl", b"{}"),
        ("paper.pdf", b"x"),
        ("photo.png", b"x"),
    ]);
    let root = [folder.path().to_owned()];
    let usual = discover(&root, &LoadSettings::default()).expect("walk");
    assert_eq!(ids(&usual), ["a.md"]);
    assert_eq!(usual.skipped.get(&Skip::UnwantedFormat), Some(&3));
    assert_eq!(usual.skipped.get(&Skip::UnknownFormat), Some(&1));
    let formats = vec![LoadFormat::Code, LoadFormat::Jsonl, LoadFormat::Pdf];
    let settings = LoadSettings { formats, ..LoadSettings::default() };
    assert_eq!(
        ids(&discover(&root, &settings).expect("walk")),
        ["main.rs", "paper.pdf", "records.jsonl"]
    );
}

/// Guarantees: records and code are read; a broken record is its file's error and names its line; a
/// PDF without the feature says how to get it.
#[test]
fn records_and_code_are_read_and_a_broken_line_is_named() {
    let settings = LoadSettings::default();
    let code = read_one("a.py", b"def f():\n    return 1\n", &settings).expect("code");
    assert_eq!((code.text.as_str(), code.format), ("def f():\n    return 1\n", Format::Code));
    let records = read_one("a.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"two\"}", &settings);
    assert_eq!(records.expect("records").text, "one\n\ntwo");
    let broken = read_one("a.ndjson", b"{\"text\": \"one\"}\n{", &settings).expect_err("broken");
    assert_eq!(broken.error_type(), "not_text");
    assert!(broken.to_string().contains("a.ndjson: line 2: it is not JSON"), "{broken}");
    let pdf = read_one("a.pdf", b"%PDF-1.5", &settings).expect_err("no PDF").to_string();
    let expected = if cfg!(feature = "pdf") { "not a whole PDF" } else { "--features pdf" };
    assert!(pdf.contains(expected), "{pdf}");
}

#[test]
fn a_missing_root_is_not_found() {
    let error =
        discover(&["/nowhere/at/all".into()], &LoadSettings::default()).expect_err("missing");
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
    let small = LoadSettings { file_bytes_max: 8, ..LoadSettings::default() };
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
    let discovery = discover(&[folder.path().to_owned()], &LoadSettings::default()).expect("walk");
    fs::remove_file(folder.path().join("a.md")).expect("removed");
    let error = read(&discovery.found[0], &LoadSettings::default()).expect_err("vanished");
    assert_eq!(error.error_type(), "not_found");
}
