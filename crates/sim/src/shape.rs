//! A run made smaller, so that what is left of it can be read.

use std::collections::BTreeSet;
use std::fmt;

use crate::faults::FaultSet;

/// What of a seed's run is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// These kinds of fault.
    pub without: FaultSet,
    /// Faults with a moment, but for these places among them.
    pub planned: Option<BTreeSet<usize>>,
    /// Nodes beyond so many.
    pub nodes: Option<usize>,
    /// Deployments beyond so many.
    pub deployments: Option<u64>,
    /// Faults and commands after so many ms.
    pub until: Option<u64>,
    /// Commands of operators, but for deploying.
    pub no_commands: bool,
    /// Misbehaviour of releases.
    pub good: bool,
}

impl fmt::Display for Shape {
    /// As the command line takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |words: Vec<String>| words.join(",");
        if self.without != FaultSet::NONE {
            let words = self.without.iter().map(|fault| fault.word().to_owned()).collect();
            write!(f, " --without {}", list(words))?;
        }
        if let Some(planned) = &self.planned {
            let places = planned.iter().map(ToString::to_string).collect::<Vec<_>>();
            let places = if places.is_empty() {
                "none".to_owned()
            } else {
                list(places)
            };
            write!(f, " --planned {places}")?;
        }
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if let Some(deployments) = self.deployments {
            write!(f, " --deployments {deployments}")?;
        }
        if let Some(until) = self.until {
            write!(f, " --until {until}")?;
        }
        if self.no_commands {
            write!(f, " --no-commands")?;
        }
        if self.good {
            write!(f, " --good")?;
        }
        Ok(())
    }
}
