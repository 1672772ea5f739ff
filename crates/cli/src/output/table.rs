//! Tables whose columns line up, whatever the characters are.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::style::{Colour, Style};

/// Blanks between columns.
const GAP: &str = "  ";
/// A last column is never cut below this.
const LAST_WIDTH_MIN: usize = 16;

/// One cell: a single line.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

impl Cell {
    /// Text; line breaks and control characters become blanks, since they come from elsewhere.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let text = if text.contains(char::is_control) {
            text.replace(char::is_control, " ")
        } else {
            text
        };
        Self {
            text,
            colour: None,
            right: false,
        }
    }

    /// A status in its colour.
    pub(crate) fn status(status: &str) -> Self {
        Self {
            colour: Colour::of_status(status),
            ..Self::new(status)
        }
    }

    /// A number: lines up on the right.
    pub(crate) fn number(number: impl std::fmt::Display) -> Self {
        Self {
            right: true,
            ..Self::new(number.to_string())
        }
    }

    /// In a colour.
    pub(crate) fn colour(self, colour: Colour) -> Self {
        Self {
            colour: Some(colour),
            ..self
        }
    }

    fn width(&self) -> usize {
        self.text.width()
    }

    fn write(&self, width: usize, last: bool, style: Style) -> String {
        let text = fit(&self.text, width);
        let blanks = " ".repeat(width - text.width());
        let painted = self
            .colour
            .map_or_else(|| text.clone(), |colour| style.paint(&text, colour));
        match (self.right, last) {
            (true, _) => format!("{blanks}{painted}"),
            (false, true) => painted,
            (false, false) => format!("{painted}{blanks}"),
        }
    }
}

/// The text, cut to so many columns with an ellipsis where it is longer.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            let width = c.width().unwrap_or(0);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Rows under titles.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    titles: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these titles.
    pub(crate) fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self {
            titles: titles.map(|title| Cell::new(title).colour(Colour::Grey)).into(),
            rows: Vec::new(),
        }
    }

    /// With one more row; a title above numbers goes right with them.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.titles.len(), "a row has a cell under each title");
        for (title, cell) in self.titles.iter_mut().zip(&cells) {
            title.right |= cell.right;
        }
        self.rows.push(cells.into());
    }

    /// Its lines; the last column is cut so that they fit into `columns`.
    pub(crate) fn lines(&self, style: Style, columns: Option<usize>) -> Vec<String> {
        let all = || std::iter::once(&self.titles).chain(&self.rows);
        let mut widths = vec![0; self.titles.len()];
        for row in all() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        if let (Some(columns), Some((last, others))) = (columns, widths.split_last_mut()) {
            let before: usize = others.iter().map(|width| width + GAP.len()).sum();
            *last = (*last).min(columns.saturating_sub(before).max(LAST_WIDTH_MIN));
        }
        let line = |row: &Vec<Cell>| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(i, (cell, &width))| cell.write(width, i + 1 == row.len(), style))
                .collect();
            cells.join(GAP).trim_end().to_owned()
        };
        all().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_wide_characters() {
        let mut table = Table::new(["NAME", "N", "WHY"]);
        table.row([Cell::new("支払い"), Cell::number(7), Cell::new("a\nb")]);
        table.row([Cell::new("x"), Cell::number(1234), Cell::new("")]);
        let lines = table.lines(Style::new(false), None);
        assert_eq!(lines, ["NAME       N  WHY", "支払い     7  a b", "x       1234"]);
    }

    #[test]
    fn the_last_column_is_cut_to_the_terminal() {
        let mut table = Table::new(["ID", "MESSAGE"]);
        table.row([Cell::new("1"), Cell::new("a long message that does not fit")]);
        let lines = table.lines(Style::new(false), Some(24));
        assert_eq!(lines[1], "1   a long message that…");
        assert_eq!(lines[1].width(), 24);
    }

    #[test]
    fn colours_leave_the_columns_alone() {
        let mut table = Table::new(["STATUS", "X"]);
        table.row([Cell::status("Failed"), Cell::new("y")]);
        let lines = table.lines(Style::new(true), None);
        assert_eq!(lines[1], "\x1b[31mFailed\x1b[0m  y");
    }
}
