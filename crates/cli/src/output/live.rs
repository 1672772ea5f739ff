//! Lines that are written over in place, for somebody who looks on.

use std::io::{self, Write as _};

use crossterm::cursor::{Hide, MoveToColumn, MoveToPreviousLine, Show};
use crossterm::queue;
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};

/// A block of lines at the end of the terminal. The cursor comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    /// Lines that the last frame has.
    lines: u16,
}

impl Live {
    /// A block that has no lines yet.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn new() -> io::Result<Self> {
        crossterm::execute!(io::stdout(), Hide)?;
        Ok(Self { lines: 0 })
    }

    /// Writes a frame over the last one. Its lines must fit the terminal's columns, and the frame its rows.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn draw(&mut self, frame: &[String]) -> io::Result<()> {
        let mut out = Vec::new();
        queue!(out, BeginSynchronizedUpdate)?;
        if self.lines > 0 {
            queue!(out, MoveToPreviousLine(self.lines))?;
        }
        for line in frame {
            queue!(out, MoveToColumn(0), Clear(ClearType::CurrentLine))?;
            writeln!(out, "{line}")?;
        }
        queue!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()?;
        self.lines = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        Ok(())
    }

    /// Leaves the last frame where it is; the next goes below.
    pub(crate) fn keep(&mut self) {
        self.lines = 0;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Without a terminal there is no cursor to bring back.
        drop(crossterm::execute!(io::stdout(), Show));
    }
}
