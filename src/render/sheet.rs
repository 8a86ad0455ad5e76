//! Tables that fit the width they are shown in.
//!
//! A table whose cells are folded letter by letter cannot be read, so nothing is folded: first the
//! columns go that say nothing about any row, then names are shortened, then the columns go that
//! matter least, and a line below says which. Markdown has everything.

use comfy_table::{Attribute, Cell, Color, ContentArrangement};

use crate::cli::Format;
use crate::output::{inert, table};
use crate::terminal::{Look, Tone, columns, shortened};

/// How long a column stays when there is little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keep {
    /// The lowest number goes first.
    Rank(u8),
    /// Always.
    Always,
}

/// What may be done to the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Names: shortened where there is little room.
    Text,
    /// Texts that are of no use shortened, such as ids.
    Whole,
    /// Numbers, to the right.
    Number,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    kind: Kind,
    keep: Keep,
}

/// What stands in a cell.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    text: String,
    tone: Option<Tone>,
}

impl Entry {
    pub(super) fn toned(text: impl Into<String>, tone: Option<Tone>) -> Self {
        Self { text: text.into(), tone }
    }

    /// Whether it says something.
    fn is_telling(&self) -> bool {
        !matches!(self.text.as_str(), "" | "-" | "none")
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self { text, tone: None }
    }
}

/// A table under construction.
#[derive(Debug, Clone, Default)]
pub(super) struct Sheet {
    columns: Vec<Column>,
    rows: Vec<Vec<Entry>>,
}

impl Sheet {
    /// Adds a column of names, which may be shortened.
    pub(super) fn text(self, title: &str, keep: Keep) -> Self {
        self.column(title, Kind::Text, keep)
    }

    /// Adds a column of texts that are whole or not there.
    pub(super) fn whole(self, title: &str, keep: Keep) -> Self {
        self.column(title, Kind::Whole, keep)
    }

    /// Adds a column of numbers.
    pub(super) fn number(self, title: &str, keep: Keep) -> Self {
        self.column(title, Kind::Number, keep)
    }

    fn column(mut self, title: &str, kind: Kind, keep: Keep) -> Self {
        self.columns.push(Column { title: title.to_owned(), kind, keep });
        self
    }

    /// Adds a row, whose texts may come from a trace; it has an entry for each column.
    pub(super) fn row<E: Into<Entry>>(&mut self, entries: impl IntoIterator<Item = E>) {
        let safe = |entry: E| {
            let Entry { text, tone } = entry.into();
            // A tab takes as many columns as the terminal likes.
            Entry { text: inert(&text).replace(['\n', '\t'], " "), tone }
        };
        self.rows.push(entries.into_iter().map(safe).collect());
    }

    /// The table, and below it what was left out.
    pub(super) fn render(&self, format: Format, look: Look) -> String {
        if format == Format::Markdown {
            let all: Vec<usize> = (0..self.columns.len()).collect();
            return format!("{}\n", self.drawn(format, look, &all, &self.widths()));
        }
        let (kept, widths) = self.fitted(look.width);
        let mut text = format!("{}\n", self.drawn(format, look, &kept, &widths));
        let left_out: Vec<&str> = (0..self.columns.len())
            .filter(|index| !kept.contains(index) && self.is_telling(*index))
            .filter_map(|index| self.columns.get(index))
            .map(|column| column.title.as_str())
            .collect();
        if !left_out.is_empty() {
            let line = format!(
                "left out to fit {} columns: {} (--format json has all)",
                look.width,
                left_out.join(", ")
            );
            text.push_str(&format!("{}\n", look.paint(&line, Tone::Faint)));
        }
        text
    }

    /// The columns that are shown in `width`, and how wide each column is.
    fn fitted(&self, width: usize) -> (Vec<usize>, Vec<usize>) {
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let mut widths = self.widths();
        if taken(&kept, &widths) > width {
            kept.retain(|index| self.keep(*index) == Keep::Always || self.is_telling(*index));
        }
        self.shorten(&kept, &mut widths, width, NAME_FAIR);
        while taken(&kept, &widths) > width
            && let Some(least) = kept.iter().copied().min_by_key(|index| self.keep(*index))
            && self.keep(least) != Keep::Always
        {
            kept.retain(|index| *index != least);
        }
        self.admit(&mut kept, &widths, width);
        // What is left over after all goes back to the names.
        let mut widths = self.widths();
        self.shorten(&kept, &mut widths, width, NAME_MIN);
        (kept, widths)
    }

    /// Gives the room that a wide column left to those that went before it, the most telling first.
    fn admit(&self, kept: &mut Vec<usize>, widths: &[usize], width: usize) {
        let out = |index: &usize| !kept.contains(index) && self.is_telling(*index);
        let mut out: Vec<usize> = (0..self.columns.len()).filter(out).collect();
        out.sort_by_key(|index| std::cmp::Reverse(self.keep(*index)));
        for index in out {
            let place = kept.partition_point(|shown| *shown < index);
            kept.insert(place, index);
            if taken(kept, widths) > width {
                kept.remove(place);
            }
        }
    }

    /// Takes from the widest text, again and again, until all fits or no text is wider than `least`.
    fn shorten(&self, kept: &[usize], widths: &mut [usize], width: usize, least: usize) {
        while taken(kept, widths) > width {
            let texts = kept.iter().copied().filter(|index| self.is_text(*index));
            let widest = texts.max_by_key(|index| widths.get(*index).copied());
            let Some(widest) = widest.and_then(|index| widths.get_mut(index)) else { return };
            if *widest <= least {
                return;
            }
            *widest -= 1;
        }
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|entry| columns(&entry.text)).max().unwrap_or(0);
            widest.max(columns(&column.title))
        };
        self.columns.iter().enumerate().map(of_column).collect()
    }

    fn keep(&self, index: usize) -> Keep {
        self.columns.get(index).map_or(Keep::Always, |column| column.keep)
    }

    fn is_text(&self, index: usize) -> bool {
        self.columns.get(index).is_some_and(|column| column.kind == Kind::Text)
    }

    fn is_telling(&self, index: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(index)).any(Entry::is_telling)
    }

    fn drawn(&self, format: Format, look: Look, kept: &[usize], widths: &[usize]) -> String {
        let shown: Vec<&Column> = kept.iter().filter_map(|i| self.columns.get(*i)).collect();
        let titles: Vec<&str> = shown.iter().map(|column| column.title.as_str()).collect();
        let mut drawn = table(format, &titles, titles.len());
        let is_painted = look.is_colored && format != Format::Markdown;
        drawn.force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
        if is_painted {
            drawn.enforce_styling().style_text_only();
            drawn.set_header(
                titles.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)),
            );
        }
        for (place, _) in shown.iter().enumerate().filter(|(_, column)| column.kind == Kind::Number)
        {
            if let Some(place) = drawn.column_mut(place) {
                place.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        for row in &self.rows {
            let cells = kept.iter().filter_map(|index| {
                let (entry, width) = (row.get(*index)?, *widths.get(*index)?);
                let cell = Cell::new(shortened(&entry.text, width));
                Some(match entry.tone.filter(|_| is_painted) {
                    Some(tone) => painted(cell, tone),
                    None => cell,
                })
            });
            drawn.add_row(cells);
        }
        drawn.trim_fmt()
    }
}

/// The same colours that [`Look::paint`] has, as comfy-table names them.
fn painted(cell: Cell, tone: Tone) -> Cell {
    match tone {
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
    }
}

/// Columns of the terminal that a table takes: each cell has a space at both sides, and there is
/// one between cells.
fn taken(kept: &[usize], widths: &[usize]) -> usize {
    let cells: usize = kept.iter().filter_map(|index| widths.get(*index)).map(|w| w + 2).sum();
    cells + kept.len().saturating_sub(1)
}

/// Texts are shortened to this before a column goes: enough to know most names by.
const NAME_FAIR: usize = 20;
/// Shorter, a name is no name.
const NAME_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::default()
            .text("stage", Keep::Always)
            .number("calls", Keep::Rank(3))
            .number("queue", Keep::Rank(9))
            .number("p50", Keep::Rank(1))
            .number("share", Keep::Always);
        for (name, p50) in [("app.chain.retrieve.embed", "12.3 ms"), ("\u{691c}\u{7d22}", "1 us")] {
            sheet.row([name, "1 000", "-", p50, "39.1 %"].map(str::to_owned));
        }
        sheet
    }

    /// Guarantees: no line is wider than asked, at any width that leaves room for what must stay;
    /// what says nothing goes first and unmentioned, then the least column, by name.
    #[test]
    fn tables_fit_and_say_what_they_left_out() {
        for width in 40..100 {
            let text = sheet().render(Format::Table, Look::plain(width));
            let table = text.lines().take_while(|line| !line.starts_with("left out"));
            for line in table {
                assert!(columns(line) <= width, "{} > {width}: {line:?}", columns(line));
            }
            assert!(text.contains("39.1 %") && text.contains("embed"), "{text}");
        }
        let wide = sheet().render(Format::Table, Look::plain(100));
        assert!(wide.contains("queue") && wide.contains("app.chain.retrieve.embed"), "{wide}");
        assert!(!wide.contains("left out"), "{wide}");
        let narrow = sheet().render(Format::Table, Look::plain(48));
        assert!(narrow.contains("left out to fit 48 columns: p50 ("), "{narrow}");
        assert!(narrow.contains("1 000") && !narrow.contains("queue"), "{narrow}");
    }

    /// Guarantees: Markdown is whole, whatever the terminal is like.
    #[test]
    fn markdown_has_everything_and_no_colour() {
        let look = Look { width: 40, is_colored: true };
        let text = sheet().render(Format::Markdown, look);
        assert!(text.contains("| app.chain.retrieve.embed | 1 000"), "{text}");
        assert!(text.contains("queue") && !text.contains('\u{1b}'), "{text}");
    }

    /// Guarantees: P2 - what a trace calls itself cannot paint the terminal, or break a line.
    #[test]
    fn colours_are_ours_alone() {
        let mut sheet = Sheet::default().text("name", Keep::Always);
        sheet.row([Entry::toned("a\u{1b}[31mb\tc\nd", Some(Tone::Bad))]);
        let text = sheet.render(Format::Table, Look { width: 80, is_colored: true });
        assert!(text.contains("a\\u{1b}[31mb c d"), "{text:?}");
        assert!(text.contains("\u{1b}[1m"), "{text:?}");
    }
}
