//! Figures and their targets.

use std::fmt;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// No more than exactly this.
    Exactly(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Exactly(wanted) => (value - wanted).abs() < f64::EPSILON,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {}", number(*least)),
            Self::AtMost(most) => write!(f, "≤ {}", number(*most)),
            Self::Exactly(wanted) => number(*wanted).fmt(f),
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    /// The name under which it is compared with the last recorded one: for ratios only, as times are the machine's.
    guard: Option<String>,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            target: None,
            guard: None,
        }
    }

    /// How many times another; compared with what was recorded.
    pub(crate) fn ratio(guard: &str, what: impl Into<String>, value: f64) -> Self {
        Self {
            guard: Some(guard.to_owned()),
            ..Self::new(what, value, "×")
        }
    }

    #[must_use]
    pub(crate) fn wants(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    pub(crate) fn guard(&self) -> Option<(&str, f64)> {
        Some((self.guard.as_deref()?, self.value))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = format!("{} {}", number(self.value), self.unit);
        write!(f, "  {:<66} {:>16}", self.what, value.trim_end())?;
        let Some(target) = self.target else { return Ok(()) };
        let verdict = if target.is_met(self.value) {
            "met"
        } else {
            "MISSED"
        };
        write!(f, "   target {target}: {verdict}")
    }
}

/// Three digits, or all of those before the point.
fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == value.trunc() || size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All figures of a run, told as they come.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn section(&mut self, title: &str) {
        println!("\n{title}");
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        println!("{figure}");
        self.figures.push(figure);
    }

    /// Something beside the figures.
    pub(crate) fn say(&mut self, text: &str) {
        println!("  {text}");
    }

    /// How many targets were missed.
    pub(crate) fn missed(&self) -> usize {
        let missed = |figure: &&Figure| figure.target.is_some_and(|target| !target.is_met(figure.value));
        self.figures.iter().filter(missed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_it_is_what_was_wanted() {
        let wanted = |value, target| Figure::new("it", value, "ms").wants(target).to_string();
        assert!(wanted(4.99, Target::AtMost(5.0)).ends_with("4.99 ms   target ≤ 5: met"));
        assert!(wanted(0.5, Target::AtLeast(1.0)).ends_with("0.500 ms   target ≥ 1: MISSED"));
        assert!(wanted(1.0, Target::Exactly(0.0)).ends_with("MISSED"));
        assert!(wanted(f64::NAN, Target::AtMost(5.0)).ends_with("MISSED"));
        assert_eq!(number(123_456.7), "123457");
    }
}
