//! Colours, where they are wanted.

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Waits, or needs a look.
    Yellow,
    /// Under way.
    Cyan,
    /// Besides.
    Grey,
    /// Titles.
    Bold,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::Grey => "2",
            Self::Bold => "1",
        }
    }

    /// The colour of a status of the API, whatever it is of.
    pub(crate) fn of_status(status: &str) -> Option<Self> {
        match status {
            "Succeeded" | "Healthy" | "pass" => Some(Self::Green),
            "Failed" | "RolledBack" | "Cancelled" | "fail" => Some(Self::Red),
            "Degraded" | "Paused" | "PendingApproval" | "WaitingForApproval" | "Initializing"
            | "Stopping" => Some(Self::Yellow),
            "Running" | "InProgress" => Some(Self::Cyan),
            "Pending" | "Skipped" | "Stopped" => Some(Self::Grey),
            _ => None,
        }
    }
}

/// Whether colours are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// With colours or without.
    pub(crate) fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// The text in a colour.
    pub(crate) fn paint(self, text: impl AsRef<str>, colour: Colour) -> String {
        let text = text.as_ref();
        if self.colours && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }

    /// The text in the colour of a status.
    pub(crate) fn status(self, status: &str) -> String {
        Colour::of_status(status).map_or_else(|| status.to_owned(), |colour| self.paint(status, colour))
    }
}
