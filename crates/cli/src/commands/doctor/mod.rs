//! Look at everything that a server or an agent on this machine depends on, and say what to do.

mod certificates;
mod data;
mod machine;
mod network;

use hotswap_config::Loaded;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::settings;
use crate::args::{self, Global};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Output, Table};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// As it should be.
    Ok,
    /// It works without, or will not for long.
    Warn,
    /// Something doesn't work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    what: &'static str,
    level: Level,
    /// How it is.
    found: String,
    /// What to do about it.
    next: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            level: Level::Ok,
            found: found.into(),
            next: None,
        }
    }

    fn warn(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what,
            level: Level::Warn,
            found: found.into(),
            next: Some(next.into()),
        }
    }

    fn fail(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(what, found, next)
        }
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Looks at everything and writes a table.
pub(super) fn run(args: &args::Doctor, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let (loaded, mut findings) = configuration(args);
    findings.extend(machine::look());
    findings.extend(data::look(&loaded));
    findings.extend(certificates::look(&loaded));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    findings.extend(runtime.block_on(network::look(&loaded, global)));
    let worst = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    if output.is_json() {
        let findings = findings.iter().map(
            |Finding {
                 what,
                 level,
                 found,
                 next,
             }| { json!({ "check": what, "level": level.name(), "found": found, "next": next }) },
        );
        output.json(&findings.collect::<Vec<Value>>())?;
    } else {
        show(&findings, output)?;
    }
    Ok(if worst == Level::Fail {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// The configuration in force; the defaults where it is faulty.
fn configuration(args: &args::Doctor) -> (Loaded, Vec<Finding>) {
    match settings::load(&settings::sources(&args.layers)) {
        Ok(loaded) => {
            let file = loaded.file.as_ref().map(|path| path.display().to_string());
            let found = file.unwrap_or_else(|| "no file: the environment and the defaults".to_owned());
            (loaded, vec![Finding::ok("configuration", found)])
        }
        Err(problem) => {
            let faults = problem.faults().join("; ");
            let found = if faults.is_empty() {
                problem.to_string()
            } else {
                faults
            };
            let finding = Finding::fail(
                "configuration",
                found,
                "mend it; `hotswap config check` checks it again",
            );
            let defaults = hotswap_config::load(&hotswap_config::Sources::default());
            (defaults.expect("the defaults are sound"), vec![finding])
        }
    }
}

fn show(findings: &[Finding], output: &Output) -> anyhow::Result<()> {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for finding in findings {
        let colour = match finding.level {
            Level::Ok => Colour::Green,
            Level::Warn => Colour::Yellow,
            Level::Fail => Colour::Red,
        };
        table.row([
            Cell::new(finding.what),
            Cell::new(finding.level.name()).colour(colour),
            Cell::new(finding.found.as_str()),
        ]);
    }
    output.table(&table)?;
    let steps: Vec<(&str, &String)> = findings
        .iter()
        .filter_map(|finding| Some((finding.what, finding.next.as_ref()?)))
        .collect();
    if !steps.is_empty() {
        output.line("")?;
    }
    for (what, step) in steps {
        output.line(format!("next: {what}: {step}"))?;
    }
    Ok(())
}
