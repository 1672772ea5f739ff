//! What was shown. Every number is a driver's own count or the nodes' meters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::output::{Cell, Colour, Output, Table, grouped};

/// A kind's swap.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Swap {
    pub(super) kind: &'static str,
    pub(super) module: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Of its deployment.
    pub(super) status: String,
    pub(super) message: String,
    /// What was sent meanwhile.
    pub(super) what: &'static str,
    /// For how long.
    pub(super) seconds: f64,
    /// How many were sent, by whoever sent them.
    pub(super) sent: u64,
    /// Checks that the nodes send through their own ingress for Validation: they are counted there, too.
    pub(super) checks: u64,
    /// Those that nobody answered, or wrongly; packets have no answer.
    pub(super) missed: u64,
    /// How many came, by the nodes' meters.
    pub(super) counted: u64,
    /// Answers by the version that they name.
    pub(super) by_version: BTreeMap<String, u64>,
}

impl Swap {
    /// What is not as it should be.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let Self { module, to, what, .. } = self;
        if self.status != "Succeeded" {
            faults.push(format!(
                "{module} {to} should have gone out, but is {}: {}",
                self.status, self.message
            ));
        }
        if self.missed > 0 {
            faults.push(format!(
                "{} {what} of {module} were not answered",
                grouped(self.missed)
            ));
        }
        if self.counted != self.sent + self.checks {
            faults.push(format!(
                "{} {what} and {} checks were sent to {module}, and its nodes counted {}",
                grouped(self.sent),
                self.checks,
                grouped(self.counted)
            ));
        }
        faults
    }

    /// Those that were not answered, or that one side counted and the other didn't.
    fn unseen(&self) -> u64 {
        self.missed + self.counted.abs_diff(self.sent + self.checks)
    }

    fn answers(&self) -> String {
        let answers: Vec<String> = self
            .by_version
            .iter()
            .map(|(version, count)| format!("{} by {version}", grouped(*count)))
            .collect();
        answers.join(", ")
    }
}

/// A kind that was left out.
#[derive(Clone, Debug, Serialize)]
struct LeftOut {
    kind: &'static str,
    lacks: String,
}

/// All that was shown.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) shown: Vec<Swap>,
    left_out: Vec<LeftOut>,
}

impl Report {
    pub(super) fn left_out(&mut self, kind: &'static str, lacks: &str) {
        self.left_out.push(LeftOut {
            kind,
            lacks: lacks.to_owned(),
        });
    }

    fn faults(&self) -> Vec<String> {
        self.shown.iter().flat_map(Swap::faults).collect()
    }

    /// Whether everything that could be shown went as it should.
    pub(super) fn is_well(&self) -> bool {
        self.faults().is_empty()
    }

    /// Writes it for people, or for programs.
    ///
    /// # Errors
    /// Those of stdout.
    pub(super) fn show(&self, output: &Output) -> std::io::Result<()> {
        let faults = self.faults();
        if output.is_json() {
            let mut report = serde_json::to_value(self).map_err(std::io::Error::other)?;
            report["faults"] = faults.into();
            return output.json(&report);
        }
        output.line("")?;
        let mut table = Table::new([
            "KIND",
            "SWAP",
            "SENT",
            "CHECKS",
            "COUNTED BY NODES",
            "UNSEEN",
            "WHAT",
        ]);
        for swap in &self.shown {
            let answers = swap.answers();
            let what = if answers.is_empty() {
                swap.what.to_owned()
            } else {
                format!("{}: {answers}", swap.what)
            };
            table.row([
                Cell::new(swap.kind),
                Cell::new(format!("{} {} → {}", swap.module, swap.from, swap.to)),
                Cell::number(grouped(swap.sent)),
                Cell::number(swap.checks),
                Cell::number(grouped(swap.counted)),
                Cell::number(grouped(swap.unseen())),
                Cell::new(what),
            ]);
        }
        // Nothing of it is cut.
        for line in table.lines(output.style(), None) {
            output.line(line)?;
        }
        output.line("")?;
        for left_out in &self.left_out {
            output.line(format!("{} was left out: {}", left_out.kind, left_out.lacks))?;
        }
        for fault in &faults {
            output.line(
                output
                    .style()
                    .paint(format!("Not as it should be: {fault}."), Colour::Red),
            )?;
        }
        if faults.is_empty() {
            let shown: Vec<&str> = self.shown.iter().map(|swap| swap.kind).collect();
            let line = format!(
                "Swapped under traffic, with nothing unseen: {}.",
                shown.join(", ")
            );
            output.line(output.style().paint(line, Colour::Green))?;
        }
        Ok(())
    }
}
