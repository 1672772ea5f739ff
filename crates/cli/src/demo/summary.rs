//! What the story came to. Every number is the customers' own count, the server's record or the nodes' reports.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::policy::PRODUCTION;
use super::story::{BAD, Chapter, GOOD};
use super::traffic::Counters;
use crate::output::{Cell, Colour, Output, Table, duration, grouped, iso_duration};

/// The story's outcome.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// Requests that modules answered.
    pub(crate) requests_answered: u64,
    /// Requests that got no answer of a module.
    pub(crate) requests_dropped: u64,
    /// Why they were dropped.
    pub(crate) dropped_because: BTreeMap<String, u64>,
    /// Answers that were not the right one.
    pub(crate) wrong_answers: u64,
    /// Time from the first deployment's start to the last one's end.
    pub(crate) story_seconds: f64,
    /// Each stage of both deployments.
    pub(crate) stages: Vec<StageTime>,
    /// How the bad release fared; absent if it was never turned back.
    pub(crate) caught: Option<Caught>,
    /// What went otherwise than it should; nothing, if all is well.
    pub(crate) faults: Vec<String>,
}

/// A stage's time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StageTime {
    version: String,
    stage: String,
    strategy: Option<String>,
    status: String,
    seconds: f64,
}

/// How the bad release was caught and came back.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Caught {
    /// The server's reason.
    because: String,
    /// Production nodes that ever had it.
    nodes_reached: u32,
    /// From its first wrong answer in Production, as a customer got it, to the verdict.
    first_wrong_to_verdict_seconds: Option<f64>,
    /// From the verdict to the last node's report that it gets no requests any more.
    verdict_to_back_seconds: Option<f64>,
    /// From the verdict to the sending of the last request that it answered; 0 if that was sent before.
    last_request_after_verdict_seconds: Option<f64>,
    /// Its answers in Production.
    answers: u64,
    /// The wrong ones among them.
    wrong_answers: u64,
    /// How long it answered in Production.
    exposed_seconds: f64,
    /// Requests that all of Production answered meanwhile.
    production_answers_meanwhile: u64,
    /// The wrong answers that all of Production would have given: its share of wrong answers times that.
    wrong_answers_everywhere: u64,
}

impl Summary {
    /// Of both chapters, and what the customers saw.
    pub(crate) fn new(
        good: &Chapter,
        bad: &Chapter,
        nodes_reached: u32,
        took: Duration,
        counters: &Counters,
    ) -> Self {
        let stages = [(GOOD, good), (BAD, bad)]
            .into_iter()
            .flat_map(|(version, chapter)| {
                let stages = chapter
                    .deployment
                    .stages
                    .iter()
                    .filter(|stage| stage.status != "Skipped");
                stages.map(move |stage| StageTime {
                    version: version.to_owned(),
                    stage: stage.name.clone(),
                    strategy: stage.strategy.clone(),
                    status: stage.status.clone(),
                    seconds: stage
                        .duration
                        .as_deref()
                        .and_then(iso_duration)
                        .unwrap_or_default()
                        .as_secs_f64(),
                })
            });
        let caught = bad
            .turned
            .map(|turned| Caught::new(bad, turned, nodes_reached, counters));
        let mut summary = Self {
            requests_answered: counters.answers(),
            requests_dropped: counters.dropped_total(),
            dropped_because: counters.reasons.clone(),
            wrong_answers: counters.wrong(),
            story_seconds: took.as_secs_f64(),
            stages: stages.collect(),
            caught,
            faults: Vec::new(),
        };
        summary.faults = summary.find_faults(good, bad, counters);
        summary
    }

    fn find_faults(&self, good: &Chapter, bad: &Chapter, counters: &Counters) -> Vec<String> {
        let mut faults = Vec::new();
        let outcome = |chapter: &Chapter| {
            format!(
                "{}: {}",
                chapter.deployment.status,
                chapter.deployment.message.as_deref().unwrap_or_default()
            )
        };
        if good.deployment.status != "Succeeded" {
            faults.push(format!("{GOOD} should have gone out, but is {}", outcome(good)));
        }
        let production = bad.deployment.stage(&format!("Deploy to {PRODUCTION}"));
        if bad.deployment.status != "Failed" || production.is_none_or(|stage| stage.status != "Failed") {
            faults.push(format!(
                "{BAD} should have been caught in {PRODUCTION}, but is {}",
                outcome(bad)
            ));
        }
        if bad.turned.is_some() && bad.back.is_none() {
            faults.push(format!("{BAD} did not leave all nodes"));
        }
        if self.requests_dropped > 0 {
            faults.push(format!(
                "{} requests were dropped",
                grouped(self.requests_dropped)
            ));
        }
        let bad_wrong: u64 = counters
            .environments
            .values()
            .filter_map(|seen| seen.versions.get(BAD))
            .map(|seen| seen.wrong)
            .sum();
        if self.wrong_answers > bad_wrong {
            faults.push(format!(
                "{} wrong answers came from other releases than {BAD}",
                self.wrong_answers - bad_wrong
            ));
        }
        faults
    }

    /// Writes it for people, or for programs.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn show(&self, output: &Output) -> std::io::Result<()> {
        if output.is_json() {
            return output.json(self);
        }
        let style = output.style();
        output.line("")?;
        let mut table = Table::new(["STAGE", "STRATEGY", GOOD, BAD]);
        for stage in &self.stages {
            // One row a stage, in the order of the first deployment.
            if stage.version != GOOD {
                continue;
            }
            let other = self
                .stages
                .iter()
                .find(|other| other.version == BAD && other.stage == stage.stage);
            let time = |stage: &StageTime| {
                let failed = if stage.status == "Failed" {
                    ", taken back"
                } else {
                    ""
                };
                format!("{}{failed}", duration(Duration::from_secs_f64(stage.seconds)))
            };
            table.row([
                Cell::new(&stage.stage),
                Cell::new(stage.strategy.as_deref().unwrap_or_default()),
                Cell::number(time(stage)),
                Cell::new(other.map(time).unwrap_or_default()),
            ]);
        }
        output.table(&table)?;
        output.line("")?;
        let mut table = Table::new(["WHAT", "VALUE", "HOW IT IS KNOWN"]);
        let mut row = |what: &str, value: String, how: String| {
            table.row([Cell::new(what), Cell::number(value), Cell::new(how)]);
        };
        row(
            "requests answered",
            grouped(self.requests_answered),
            "the customers' count".to_owned(),
        );
        row(
            "requests dropped",
            grouped(self.requests_dropped),
            "transport errors, timeouts, 502, 503, 504; nothing is sent twice".to_owned(),
        );
        if let Some(caught) = &self.caught {
            caught.rows(&mut row);
        }
        row(
            "the whole story",
            seconds(self.story_seconds),
            "from the first deployment to the last node back".to_owned(),
        );
        // Where a number comes from is never cut.
        for line in table.lines(style, None) {
            output.line(line)?;
        }
        for (reason, count) in &self.dropped_because {
            output.line(format!("dropped: {count} × {reason}"))?;
        }
        output.line("")?;
        if self.faults.is_empty() {
            output.line(style.paint(
                format!("{GOOD} went out, {BAD} came back, nothing was dropped."),
                Colour::Green,
            ))?;
        }
        for fault in &self.faults {
            output.line(style.paint(format!("Not as it should be: {fault}."), Colour::Red))?;
        }
        Ok(())
    }
}

impl Caught {
    fn new(bad: &Chapter, turned: Instant, nodes_reached: u32, counters: &Counters) -> Self {
        let seen = counters.version(PRODUCTION, BAD).cloned().unwrap_or_default();
        let after = |time: Instant, since: Instant| time.saturating_duration_since(since).as_secs_f64();
        let (exposed, meanwhile) = match (seen.first, seen.last_sent) {
            (Some(first), Some(last)) => (
                after(last, first),
                counters.answers_between(PRODUCTION, first, last),
            ),
            _ => (0.0, 0),
        };
        let share = if seen.answers == 0 {
            0.0
        } else {
            seen.wrong as f64 / seen.answers as f64
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count times a share of it"
        )]
        let everywhere = (share * meanwhile as f64).round() as u64;
        Self {
            because: bad.why_turned.clone(),
            nodes_reached,
            first_wrong_to_verdict_seconds: seen.first_wrong.map(|first| after(turned, first)),
            verdict_to_back_seconds: bad.back.map(|back| after(back, turned)),
            last_request_after_verdict_seconds: seen.last_sent.map(|last| after(last, turned)),
            answers: seen.answers,
            wrong_answers: seen.wrong,
            exposed_seconds: exposed,
            production_answers_meanwhile: meanwhile,
            wrong_answers_everywhere: everywhere,
        }
    }

    fn rows(&self, row: &mut impl FnMut(&str, String, String)) {
        let time = |value: Option<f64>| value.map(seconds).unwrap_or_else(|| "unknown".to_owned());
        row(
            "first wrong answer to verdict",
            time(self.first_wrong_to_verdict_seconds),
            "a customer's clock to the server's record".to_owned(),
        );
        row(
            "verdict to last node back",
            time(self.verdict_to_back_seconds),
            format!(
                "the nodes' reports, looked at every {} ms",
                super::director::LOOK.as_millis()
            ),
        );
        row(
            "verdict to its last request",
            time(self.last_request_after_verdict_seconds),
            format!("when a customer last sent a request that {BAD} answered"),
        );
        row(
            "wrong answers given",
            grouped(self.wrong_answers),
            format!(
                "of {} that {BAD} gave in {PRODUCTION}, on {} nodes, in {}",
                grouped(self.answers),
                self.nodes_reached,
                seconds(self.exposed_seconds)
            ),
        );
        row(
            "on all nodes meanwhile",
            grouped(self.wrong_answers_everywhere),
            format!(
                "the same share ({:.1} %) of the {} requests that all of {PRODUCTION} answered in that time",
                self.wrong_answers as f64 * 100.0 / self.answers.max(1) as f64,
                grouped(self.production_answers_meanwhile)
            ),
        );
    }
}

fn seconds(value: f64) -> String {
    duration(Duration::from_secs_f64(value))
}
