//! HTML to plain text: what a reader of the page would read, without its furniture.
//!
//! `html2text` parses; the text is taken from its tree here instead of from its renderer, which
//! lays text out in columns for a terminal. Neither parsing, walking, nor freeing the tree
//! recurses, and nesting is bounded beforehand because parsing costs nesting times size.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use html2text::{Comment, Document, Element, Handle};

/// The text of `html`, or why it has none.
pub(super) fn to_text(html: &str) -> Result<String, String> {
    check_nesting(html)?;
    // Two hundred thousand lines of browser algorithm meet arbitrary input here; a panic in
    // them is that file's error, not the end of the run.
    catch_unwind(AssertUnwindSafe(|| parse(html)))
        .map_err(|_| "the HTML parser gave up on it".to_owned())?
}

fn parse(html: &str) -> Result<String, String> {
    let tree = html2text::config::plain()
        .parse_html(html.as_bytes())
        .map_err(|error| format!("it is not HTML: {error}"))?;
    Ok(Writer::default().write(&tree.document))
}

/// Refuses pages nested deeper than [`NESTING_MAX`], without building anything.
fn check_nesting(html: &str) -> Result<(), String> {
    // Per name, because a stray end tag of one element does not close another.
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    let mut nesting = 0_usize;
    let mut rest = html;
    while let Some((_, tail)) = rest.split_once('<') {
        if let Some(comment) = tail.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let (is_end, tail) = tail.strip_prefix('/').map_or((false, tail), |tail| (true, tail));
        let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(tail.len());
        let (name, after) = tail.split_at_checked(end).unwrap_or((tail, ""));
        rest = after;
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() > NAME_BYTES_MAX {
            continue;
        }
        let name = name.to_ascii_lowercase();
        if is_end {
            if let Some(count) = open.get_mut(&name).filter(|count| **count > 0) {
                *count -= 1;
                nesting -= 1;
            }
        } else if RAW_TEXT.contains(&name.as_str()) {
            rest = after_raw_text(rest, &name);
        } else if !CLOSED_BY_ITSELF.contains(&name.as_str()) {
            *open.entry(name).or_default() += 1;
            nesting += 1;
            if nesting > NESTING_MAX {
                return Err(format!("its elements are nested deeper than {NESTING_MAX}"));
            }
        }
    }
    Ok(())
}

/// What follows the end of a `script` and its like, whose content is no markup.
fn after_raw_text<'h>(html: &'h str, name: &str) -> &'h str {
    let mut rest = html;
    while let Some((_, tail)) = rest.split_once("</") {
        if tail.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return tail;
        }
        rest = tail;
    }
    ""
}

/// Writes the text of a tree, keeping apart what the page shows apart.
#[derive(Default)]
struct Writer {
    text: String,
    /// Line breaks owed before the next text.
    breaks: usize,
    /// Whether a blank is owed before the next text.
    blank: bool,
    /// Whether a list item waits for its first text.
    item: bool,
    /// Depth of `pre` elements: inside, white space counts.
    preformatted: usize,
}

enum Step {
    Enter(Handle),
    Leave(String),
}

impl Writer {
    fn write(mut self, root: &Handle) -> String {
        let mut steps = vec![Step::Enter(root.clone())];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(node) => self.enter(&node, &mut steps),
                Step::Leave(name) => self.leave(&name),
            }
        }
        self.text
    }

    fn enter(&mut self, node: &Handle, steps: &mut Vec<Step>) {
        match &node.data {
            Element { name, attrs, .. } => {
                let name = name.local.to_string();
                let hidden = attrs.borrow().iter().any(|attr| &*attr.name.local == "hidden");
                if hidden || FURNITURE.contains(&name.as_str()) {
                    return;
                }
                self.open(&name);
                steps.push(Step::Leave(name));
                self.push_children(node, steps);
            }
            Document => self.push_children(node, steps),
            Comment { .. } => {}
            _ => self.push_text(&text_of(node)),
        }
    }

    #[expect(clippy::unused_self, reason = "reads as one of the writer's steps")]
    fn push_children(&self, node: &Handle, steps: &mut Vec<Step>) {
        steps.extend(node.children.borrow().iter().rev().cloned().map(Step::Enter));
    }

    fn open(&mut self, name: &str) {
        self.separate(name);
        match name {
            "li" => self.item = true,
            "pre" => self.preformatted += 1,
            _ => {}
        }
    }

    fn leave(&mut self, name: &str) {
        match name {
            "pre" => self.preformatted = self.preformatted.saturating_sub(1),
            "li" => self.item = false,
            // A tab keeps the cells of a row apart without drawing a table.
            "td" | "th" if self.breaks == 0 && !self.text.is_empty() => {
                self.text.push('\t');
                self.blank = false;
            }
            _ => {}
        }
        self.separate(name);
    }

    fn separate(&mut self, name: &str) {
        // A paragraph that begins an item stands beside the item's mark.
        if self.item {
            return;
        }
        if PARAGRAPHS.contains(&name) {
            self.breaks = 2;
        } else if LINES.contains(&name) {
            self.breaks = self.breaks.max(1);
        }
    }

    fn push_text(&mut self, text: &str) {
        if self.preformatted > 0 {
            self.settle();
            self.text.push_str(text);
            return;
        }
        for part in text.split_inclusive(char::is_whitespace) {
            let word = part.trim_end();
            if !word.is_empty() {
                self.settle();
                self.text.push_str(word);
            }
            self.blank |= word.len() < part.len();
        }
    }

    /// Pays what is owed before text.
    fn settle(&mut self) {
        if !self.text.is_empty() {
            if self.breaks > 0 {
                let kept = self.text.trim_end_matches(['\n', '\t', ' ']).len();
                self.text.truncate(kept);
                self.text.extend(std::iter::repeat_n('\n', self.breaks));
            } else if self.blank && !self.text.ends_with(char::is_whitespace) {
                self.text.push(' ');
            }
        }
        if std::mem::take(&mut self.item) {
            self.text.push_str("- ");
        }
        self.breaks = 0;
        self.blank = false;
    }
}

/// The text of a text node, and nothing of a document type or processing instruction.
///
/// `html2text` hands out its nodes but not the name of the text variant, so the text takes the
/// way over its HTML form, in which only four characters differ.
fn text_of(node: &Handle) -> String {
    let mut html = Vec::new();
    if node.serialize(&mut html).is_err() || html.starts_with(b"<") {
        return String::new();
    }
    let html = String::from_utf8(html).unwrap_or_default();
    if !html.contains('&') {
        return html;
    }
    html.replace("&nbsp;", "\u{A0}").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Deepest nesting read: what Chrome builds, and far above what pages for reading have. Each
/// tag costs the parser a look at all elements it stands in.
const NESTING_MAX: usize = 512;
/// Longest element name counted, bytes; the longest of HTML has 10.
const NAME_BYTES_MAX: usize = 64;

/// Elements whose content is no markup.
const RAW_TEXT: &[&str] = &["script", "style", "textarea", "title", "xmp", "iframe", "noframes"];

/// Elements that cannot be nested without others between them: they have no content, or the
/// next of their kind ends them.
const CLOSED_BY_ITSELF: &[&str] = &[
    "area", "base", "body", "br", "col", "dd", "dt", "embed", "head", "hr", "html", "img", "input",
    "li", "link", "meta", "option", "p", "param", "rp", "rt", "source", "tbody", "td", "tfoot",
    "th", "thead", "tr", "track", "wbr",
];

/// Elements a reader of the page does not read.
const FURNITURE: &[&str] = &[
    "head", "script", "style", "noscript", "template", "nav", "svg", "math", "iframe", "object",
    "canvas", "audio", "video", "button", "select", "textarea", "input", "noframes",
];

/// Elements with a blank line around them.
const PARAGRAPHS: &[&str] = &[
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "pre",
    "ul",
    "ol",
    "dl",
    "table",
    "blockquote",
    "section",
    "article",
    "main",
    "header",
    "footer",
    "aside",
    "figure",
    "form",
    "fieldset",
    "hr",
    "details",
    "address",
];

/// Elements on lines of their own.
const LINES: &[&str] =
    &["div", "li", "tr", "dt", "dd", "br", "caption", "figcaption", "summary", "legend", "option"];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_page_is_reduced_to_what_is_read() {
        let page = r#"<!DOCTYPE html><html><head><title>T</title><style>p{}</style></head><body>
            <nav><a href="/">Home</a></nav><h1>Retry &amp; wait</h1>
            <p>It waits   <b>two</b>
            seconds<a href="x">¶</a>.</p><script>if (a<b) {}</script>
            <ul><li>one</li><li><p>two</p></li></ul>
            <table><tr><th>Name</th><th>Default</th></tr><tr><td>size</td><td>256</td></tr></table>
            <pre><code>fn main() {
    x &lt; y
}</code></pre><div hidden>secret</div><!-- note --></body></html>"#;
        assert_eq!(
            to_text(page).expect("text"),
            "Retry & wait\n\nIt waits two seconds¶.\n\n- one\n- two\n\nName\tDefault\nsize\t256\n\n\
             fn main() {\n    x < y\n}"
        );
    }

    #[test]
    fn entities_are_decoded_once() {
        assert_eq!(to_text("<p>&amp;lt; &amp;amp; &lt;b&gt;</p>").expect("text"), "&lt; &amp; <b>");
    }

    /// Scenario: pages made to exhaust the stack or the clock.
    /// Guarantees: each is refused or read within seconds; nothing recurses.
    #[test]
    fn hostile_pages_end_quickly() {
        let start = Instant::now();
        assert!(to_text(&"<div>".repeat(500_000)).is_err());
        assert!(to_text(&"<b><i></x>".repeat(100_000)).is_err());
        let _ = to_text(&"<p>".repeat(200_000));
        let _ = to_text(&"<table><td>".repeat(500));
        let _ = to_text(&"<li>".repeat(200_000));
        let _ = to_text(&"<".repeat(1_000_000));
        let _ = to_text(&"<a href=x>".repeat(500));
        let _ = to_text(&"<!--".repeat(100_000));
        let _ = to_text(&"</p>".repeat(200_000));
        let _ = to_text(&"<script>".repeat(100_000));
        let _ = to_text(&"<tr><td>".repeat(100_000));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    /// Scenario: comparison signs in a script look like hundreds of open elements.
    /// Guarantees: scripts do not count as nesting.
    #[test]
    fn scripts_are_not_nesting() {
        let page = format!("<script>{}</script><p>kept</p>", "a<b;".repeat(5_000));
        assert_eq!(to_text(&page).expect("text"), "kept");
    }
}
