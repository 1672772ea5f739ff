//! Giving a module values in an environment.

use super::Reply;
use super::command::Accepted;
use crate::command::Refusal;
use crate::event::Event;
use crate::ids::{EnvName, ModuleName};
use crate::state::State;
use crate::values::{Values, faults};

/// The highest number of values: a whole number in JSON and in databases.
const NUMBER_MAX: u64 = 1 << 52;

pub(super) fn set_values(
    state: &State,
    (module, environment): (ModuleName, &EnvName),
    values: Values,
    expected: Option<u64>,
    by: String,
) -> Result<Accepted, Refusal> {
    let environment = state.environment(environment)?.name.clone();
    let known = state.modules.get(&module).ok_or_else(|| Refusal::UnknownModule {
        module: module.clone(),
        known: state.modules.keys().map(ToString::to_string).collect(),
    })?;
    let faults = faults(&values);
    if !faults.is_empty() {
        return Err(Refusal::Configuration(faults));
    }
    let here = state.env_module(&environment, &module).map(|here| &here.values);
    let newest = here.map_or(0, |here| here.newest);
    if let Some(expected) = expected.filter(|expected| *expected != newest) {
        return Err(Refusal::ValuesChanged {
            module,
            environment,
            expected,
            newest,
        });
    }
    let unchanged = match here.and_then(|here| here.current()) {
        Some(current) => *current == values,
        None => values.is_empty(),
    };
    if unchanged {
        return Ok((Vec::new(), Reply::default()));
    }
    if known.values_numbered >= NUMBER_MAX {
        return Err(Refusal::Limit(format!(
            "values of {module} were set {NUMBER_MAX} times, the most there may be"
        )));
    }
    let event = Event::ValuesSet {
        number: known.values_numbered + 1,
        module,
        environment,
        values,
        by,
    };
    Ok((vec![event], Reply::default()))
}
