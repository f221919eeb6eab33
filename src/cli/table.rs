//! Columns that line up.

use std::io::{self, Write};

use anstyle::Style;

use super::output::{PLAIN, TITLE, styled};

/// Blanks between two columns.
const GAP: usize = 2;

/// Rows under a headline; every column is as wide as its widest cell.
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[Cell; COLUMNS]>,
}

/// A text with its style.
#[derive(Clone)]
pub(super) struct Cell(pub(super) Style, pub(super) String);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(PLAIN, text.into())
    }
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(titles: [&str; COLUMNS]) -> Self {
        Self { rows: vec![titles.map(|title| Cell(TITLE, title.to_owned()))] }
    }

    pub(super) fn row(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Nothing when there are no rows.
    pub(super) fn print(&self, to: &mut impl Write) -> io::Result<()> {
        if self.rows.len() < 2 {
            return Ok(());
        }
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, Cell(_, text)) in widths.iter_mut().zip(row) {
                *width = text.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            print_row(to, row, &widths)?;
        }
        writeln!(to)
    }
}

fn print_row(to: &mut impl Write, row: &[Cell], widths: &[usize]) -> io::Result<()> {
    // Blanks are held back until another cell follows: none at the end of a line.
    let mut blanks = 0;
    for (Cell(style, text), width) in row.iter().zip(widths) {
        if !text.is_empty() {
            write!(to, "{:blanks$}{}", "", styled(*style, text))?;
            blanks = 0;
        }
        blanks += width + GAP - text.chars().count();
    }
    writeln!(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_with_text() {
        let mut table = Table::new(["A", "LONG", "C"]);
        table.row(["wide".into(), "é".into(), "".into()]);
        table.row(["".into(), "".into(), "c".into()]);
        let mut printed = anstream::StripStream::new(Vec::new());
        table.print(&mut printed).unwrap();
        let printed = String::from_utf8(printed.into_inner()).unwrap();
        assert_eq!(printed, "A     LONG  C\nwide  é\n            c\n\n");
    }
}
