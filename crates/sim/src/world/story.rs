//! What happens, told for people.

use std::fmt::Write as _;

use hotswap_core::spec::NodeSpec;

use super::World;
use crate::scenario::Scenario;

/// Longest line about one event or command.
const LINE_LEN_MAX: usize = 360;

impl World {
    /// Tells a line, if the story is told.
    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            line(story, now, &what());
        }
    }

    /// Tells what a node did.
    pub(super) fn say_of_node(&mut self, node: usize) {
        let (now, id) = (self.now, &self.ids[node]);
        if let Some(story) = &mut self.story {
            for done in std::mem::take(&mut self.agents[node].story) {
                line(story, now, &format!("{id} {done}"));
            }
        }
    }

    pub(super) fn tell_scenario(&mut self) {
        let Some(story) = &mut self.story else {
            return;
        };
        let Scenario {
            profile,
            environments,
            nodes,
            modules,
            faults,
            ..
        } = &self.scenario;
        let kinds: Vec<&str> = faults.iter().map(crate::faults::Fault::word).collect();
        let mut tell = |text: String| {
            story.push_str(&text);
            story.push('\n');
        };
        tell(format!(
            "profile {profile:?}, faults and commands until {} ms, then at most {} ms to come to rest",
            self.scenario.ends_at, self.scenario.bound
        ));
        tell(format!("kinds of fault: {}", kinds.join(", ")));
        for environment in environments {
            tell(format!(
                "environment {} {:?} {:?}",
                environment.name, environment.strategy, environment.policy
            ));
        }
        for node in nodes {
            tell(format!("node {node:?}"));
        }
        for module in modules {
            tell(format!("module {} {:?}", module.name, module.kind));
            for plan in &module.releases {
                tell(format!(
                    "  {} [{}] {:?}",
                    plan.release, plan.release.digest.0[1], plan.behaviour
                ));
            }
        }
    }
}

fn line(story: &mut String, now: u64, what: &str) {
    writeln!(story, "{:>6}.{:03} {what}", now / 1_000, now % 1_000).expect("a string takes everything");
}

/// An event or a command in a line.
pub(super) fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take(LINE_LEN_MAX).collect()
}

/// A spec in a line.
pub(super) fn told(spec: &NodeSpec) -> String {
    let modules = spec.modules.iter().map(|(name, module)| {
        let trial = if module.trial { " on trial" } else { "" };
        let routes: Vec<String> = module
            .routes
            .iter()
            .map(|(digest, weight)| format!("{}:{weight}", digest.0[1]))
            .collect();
        let preview = module
            .preview
            .map(|digest| format!(" preview {}", digest.0[1]))
            .unwrap_or_default();
        format!("{name} {}{trial} [{}]{preview}", module.rollout, routes.join(" "))
    });
    let modules: Vec<String> = modules.collect();
    format!(
        "{}/{}: {}",
        spec.generation.epoch,
        spec.generation.seq,
        modules.join(", ")
    )
}
