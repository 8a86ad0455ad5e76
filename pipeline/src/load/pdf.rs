//! PDF to text, page by page.
//!
//! Text comes in the order in which the file draws it, which is the reading order in most; columns
//! and tables may be mixed. A page that is a picture has no text, and a file of nothing else is
//! refused with that reason: it would be an empty document that nobody misses.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lopdf::Document;

/// The text of the pages, a blank line between them.
///
/// # Errors
/// The file is no PDF, encrypted, or without text; or a page cannot be read, with its number.
pub(super) fn to_text(bytes: &[u8]) -> Result<String, String> {
    // A parser of a format this old meets files that break what it takes for granted. One of them
    // must not end the run.
    catch_unwind(AssertUnwindSafe(|| pages(bytes)))
        .unwrap_or_else(|_| Err("the PDF reader gave up on it".to_owned()))
}

fn pages(bytes: &[u8]) -> Result<String, String> {
    let document =
        Document::load_mem(bytes).map_err(|error| format!("it is not a whole PDF: {error}"))?;
    if document.is_encrypted() {
        return Err("it is encrypted; save it without a password".to_owned());
    }
    let mut texts = Vec::new();
    for number in document.get_pages().into_keys() {
        let text = document
            .extract_text(&[number])
            .map_err(|error| format!("page {number} cannot be read: {error}"))?;
        let text = readable(&text);
        if !text.is_empty() {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        return Err(
            "it has no text; if its pages are pictures, recognise their text first".to_owned()
        );
    }
    Ok(texts.join("\n\n"))
}

/// Lines without blanks at their ends and without characters that no store can keep.
fn readable(text: &str) -> String {
    let text: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use lopdf::content::{Content, Operation};
    use lopdf::{Object, Stream, dictionary};

    use super::*;

    /// A PDF with these pages.
    fn pdf(pages: &[&str]) -> Vec<u8> {
        let mut document = Document::with_version("1.5");
        let pages_id = document.new_object_id();
        let font = document.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Courier",
            "Encoding" => "WinAnsiEncoding",
        });
        let resources = document.add_object(dictionary! { "Font" => dictionary! { "F1" => font } });
        let mut kids: Vec<Object> = Vec::new();
        for text in pages {
            let mut operations = vec![
                Operation::new("BT", vec![]),
                Operation::new("Tf", vec!["F1".into(), 12.into()]),
                Operation::new("Td", vec![72.into(), 720.into()]),
            ];
            if !text.is_empty() {
                operations.push(Operation::new("Tj", vec![Object::string_literal(*text)]));
            }
            operations.push(Operation::new("ET", vec![]));
            let content = Content { operations }.encode().unwrap();
            let content = document.add_object(Stream::new(dictionary! {}, content));
            let page = document.add_object(dictionary! {
                "Type" => "Page", "Parent" => pages_id, "Contents" => content,
            });
            kids.push(page.into());
        }
        let count = i64::try_from(kids.len()).unwrap();
        let all = dictionary! {
            "Type" => "Pages", "Kids" => kids, "Count" => count, "Resources" => resources,
            "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
        };
        document.objects.insert(pages_id, Object::Dictionary(all));
        let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => pages_id });
        document.trailer.set("Root", catalog);
        document.compress();
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn pages_become_text_in_order() {
        let bytes = pdf(&["The keeper was Ann.", "", "She liked tea (and the sea)."]);
        assert_eq!(to_text(&bytes).unwrap(), "The keeper was Ann.\n\nShe liked tea (and the sea).");
    }

    /// Scenario: no PDF, a PDF cut at every length, one of pictures only.
    /// Guarantees: a reason, never a panic.
    #[test]
    fn what_has_no_text_says_why() {
        assert!(to_text(b"hello").unwrap_err().contains("not a whole PDF"));
        assert!(to_text(&pdf(&["", ""])).unwrap_err().contains("pictures"));
        let whole = pdf(&["The keeper was Ann."]);
        for length in (0..whole.len()).step_by(7) {
            if let Ok(text) = to_text(&whole[..length]) {
                assert_eq!(text, "The keeper was Ann.");
            }
        }
    }
}
