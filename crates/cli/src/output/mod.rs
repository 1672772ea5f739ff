//! What is written where: tables and colours for people, JSON for programs, plain lines for pipes.

mod chart;
mod live;
mod progress;
mod style;
mod table;
mod time;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::{Format, Global, OutputArg};

pub(crate) use chart::{Line, chart};
pub(crate) use live::Live;
pub(crate) use progress::Progress;
pub(crate) use style::{Colour, Style};
pub(crate) use table::{Cell, Table, fit};
pub(crate) use time::{ago, duration, iso_duration, parse_time};

/// Columns where the terminal doesn't say how many it has.
const COLUMNS_FALLBACK: usize = 100;

/// Where and how results are written.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    style: Style,
    error_style: Style,
    terminal: bool,
}

impl Output {
    /// Looks at the flags, the environment and the terminal.
    pub(crate) fn new(global: &Global) -> Self {
        let format = match global.output {
            OutputArg::Format(format) => format,
            OutputArg::File(_) => Format::Table,
        };
        let terminal = io::stdout().is_terminal();
        let colours = |terminal: bool| {
            let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            Style::new(terminal && !global.no_color && !forbidden && !dumb)
        };
        Self {
            format,
            style: colours(terminal),
            error_style: colours(io::stderr().is_terminal()),
            terminal,
        }
    }

    /// Whether results go to programs.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether somebody looks at stdout.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The colours of stdout.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// The colours of stderr.
    pub(crate) fn error_style(&self) -> Style {
        self.error_style
    }

    /// Columns that a line may have; `None` where it goes to no terminal and nothing is cut.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.terminal
            .then(|| crossterm::terminal::size().map_or(COLUMNS_FALLBACK, |(columns, _)| columns.into()))
    }

    /// Rows of the terminal.
    pub(crate) fn rows(&self) -> usize {
        const ROWS_FALLBACK: usize = 24;
        crossterm::terminal::size().map_or(ROWS_FALLBACK, |(_, rows)| rows.into())
    }

    /// Writes a line to stdout.
    ///
    /// # Errors
    /// Those of stdout; a broken pipe ends the command quietly.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_ref().as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Writes JSON to stdout.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string_pretty(value).map_err(io::Error::other)?)
    }

    /// Writes a table to stdout.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn table(&self, table: &Table) -> io::Result<()> {
        for line in table.lines(self.style, self.columns()) {
            self.line(line)?;
        }
        Ok(())
    }
}

/// So many of something: `1 node`, `2 nodes`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A whole number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
