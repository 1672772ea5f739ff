//! What a node is asked to do, and the ground truth of what it does.

use hotswap_core::ids::{Digest, ModuleName, ReleaseRef};
use hotswap_core::invariants::{Check, NodeTruth, Violation, node};
use hotswap_core::reconcile::{Action, NodeInput};
use hotswap_core::release::Kind;
use hotswap_core::report::SmokeOutcome;

use super::{Agent, Around, Later};
use crate::scenario::Behaviour;

/// A module whose routes changed, and from what.
type Rerouted = (ModuleName, Vec<(Digest, u8)>);

impl Agent {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>, around: &mut Around<'_>) -> Check {
        for action in actions {
            let touched = self.act(action, around)?;
            if let Some((module, before)) = touched {
                self.check(&module, Some(&before))?;
            }
        }
        self.tells_of_entering(around)?;
        if self
            .machine
            .as_mut()
            .is_some_and(|machine| !machine.take_changed().is_empty())
        {
            self.report_due = true;
        }
        // Whoever is stopping begins nothing more, also not what its ledger intends: the next boot does.
        for module in self.live.keys().filter(|_| !self.stopping) {
            self.check(module, None)?;
        }
        Ok(())
    }

    /// Carries one action out; says whose routes changed, and from what.
    fn act(&mut self, action: Action, around: &mut Around<'_>) -> Result<Option<Rerouted>, Violation> {
        self.worked += 1;
        if around.trace {
            self.story.push(told(&action));
        }
        match action {
            Action::WriteLedger(ledger) => {
                let delay = self.write_time(around);
                around.later.push((delay, Later::Synced(ledger.version)));
                // The bytes are under way; the sync's end makes them the disk's.
                self.writing = Some(ledger);
            }
            Action::Prepare { module, digest, .. } => {
                let known = self.cache.contains(&digest);
                let delay = if known {
                    1
                } else {
                    around.machines.range(2, around.plan.load_ms.max(3)) * self.slow
                };
                around.later.push((
                    delay,
                    Later::Input(NodeInput::Prepared {
                        module,
                        digest,
                        result: Ok(()),
                    }),
                ));
            }
            Action::Load {
                module,
                release,
                values,
            } => self.load(module, &release, values.is_some(), around),
            Action::Route { module, routes } => {
                let live = self.live.entry(module.clone()).or_default();
                for &(digest, _) in &routes {
                    if let Behaviour::Crashes { after } = around.behaviour(&digest) {
                        around.later.push((after, Later::Dies(module.clone(), digest)));
                    }
                }
                let before = std::mem::replace(&mut live.routes, routes.clone());
                if around.kind(&module) == Kind::Kernel {
                    let acting = routes.iter().filter(|(digest, weight)| {
                        *weight > 0 && before.iter().all(|(served, _)| served != digest)
                    });
                    for (digest, _) in acting {
                        self.engage(&module, *digest, around)?;
                    }
                }
                return Ok(Some((module, before)));
            }
            Action::Preview { .. } => {}
            Action::Unload { module, digest } => {
                let live = self.live.entry(module.clone()).or_default();
                live.loaded.remove(&digest);
                live.ill.remove(&digest);
                if let Some(load) = live.load_of.remove(&digest) {
                    self.kernel.dismisses(&module, digest, load);
                }
            }
            Action::RunSmoke { module, run } => {
                let fails = match around.behaviour(&run.digest) {
                    Behaviour::SmokeFails { one_in } => around.wild && around.hit(&run.digest, one_in),
                    _ => false,
                };
                let failures = if fails {
                    vec!["GET / answered 500".to_owned()]
                } else {
                    Vec::new()
                };
                let outcome = SmokeOutcome {
                    run,
                    passed: 2,
                    failures,
                };
                let delay = around.machines.range(5, 150) * self.slow;
                around
                    .later
                    .push((delay, Later::Input(NodeInput::Smoke { module, outcome })));
            }
            Action::Observe { module, observe } => {
                let live = self.live.entry(module.clone()).or_default();
                live.observe = observe;
                if let Some(observe) = observe {
                    around
                        .later
                        .push((observe.interval.0, Later::Close(module, observe)));
                }
            }
            Action::Alarm(alarm) => self.alarms.push(alarm.to_string()),
        }
        Ok(None)
    }

    fn load(&self, module: ModuleName, release: &ReleaseRef, has_values: bool, around: &mut Around<'_>) {
        let digest = release.id();
        let mut delay = around.machines.range(1, around.plan.load_ms) * self.slow;
        let mut result = Ok(());
        if !has_values {
            result = Err("nobody knows its values".to_owned());
        }
        match around.behaviour(&digest) {
            Behaviour::LoadFails { one_in } if around.wild && around.hit(&digest, one_in) => {
                result = Err("an import is missing".to_owned());
            }
            Behaviour::LoadsSlowly(ms) if around.wild => delay += ms,
            _ => {}
        }
        around.later.push((delay, Later::Loaded(module, digest, result)));
    }

    /// Checks the ground truth of one module.
    fn check(&self, module: &ModuleName, before: Option<&[(Digest, u8)]>) -> Check {
        let (Some(machine), Some(live)) = (&self.machine, self.live.get(module)) else {
            return Ok(());
        };
        let ledger = machine.ledger();
        let truth = NodeTruth {
            node: &self.id,
            module,
            routes: &live.routes,
            loaded: &live.loaded,
            ill: &live.ill,
            place: self.in_place(module),
            verified: &self.cache,
            durable: self.disk.modules.get(module),
            intended: ledger.modules.get(module).filter(|_| self.writing.is_none()),
            vetoes: &ledger.vetoes,
            spec: ledger.spec.as_ref().and_then(|spec| spec.modules.get(module)),
        };
        match before {
            Some(before) => {
                node::a2_recorded(before, &truth)?;
                node::a7_answered(before, &truth)
            }
            None => node::check(&truth),
        }
    }
}

impl Agent {
    /// What acts at hooks of this node is at them no more for so many ms, such as while their interface is away.
    pub fn loses_hooks(&self, lasts: u64, around: &mut Around<'_>) {
        for plan in around
            .scenario
            .modules
            .iter()
            .filter(|plan| plan.kind == Kind::Ebpf)
        {
            let Some(live) = self.live.get(&plan.name) else {
                continue;
            };
            for (digest, _) in &live.routes {
                let Some(&load) = live.load_of.get(digest) else {
                    continue;
                };
                for (at, result) in [(1, Err("its hook is lost".to_owned())), (lasts + 1, Ok(()))] {
                    let health = Later::Health(plan.name.clone(), *digest, load, result);
                    around.later.push((at, health));
                }
            }
        }
    }
}

/// When a release that was just loaded turns ill, and whether it recovers.
pub(super) fn health_plan(module: &ModuleName, digest: Digest, load: u64, around: &mut Around<'_>) {
    let push = |around: &mut Around<'_>, at, result: Result<(), &str>| {
        around.later.push((
            at,
            Later::Health(module.clone(), digest, load, result.map_err(str::to_owned)),
        ));
    };
    match around.behaviour(&digest) {
        Behaviour::TurnsIll { after, one_in } if around.wild && around.hit(&digest, one_in) => {
            push(around, after, Err("its probe fails"));
        }
        Behaviour::Flaps { period } if around.wild => {
            for i in 0..3 {
                push(around, period * (2 * i + 1), Err("it flaps"));
                push(around, period * (2 * i + 2), Ok(()));
            }
        }
        _ => {}
    }
}

/// An action in a few words.
fn told(action: &Action) -> String {
    let n = |digest: &Digest| digest.0[1];
    match action {
        Action::WriteLedger(ledger) => format!("writes its ledger {}", ledger.version),
        Action::Prepare { module, digest, .. } => format!("prepares {module} {}", n(digest)),
        Action::Load { module, release, .. } => format!("loads {module} {release}"),
        Action::Route { module, routes } => {
            let routes: Vec<String> = routes
                .iter()
                .map(|(digest, weight)| format!("{}:{weight}", n(digest)))
                .collect();
            format!("routes {module} [{}]", routes.join(" "))
        }
        Action::Preview { module, digest } => format!("previews {module} {:?}", digest.as_ref().map(n)),
        Action::Unload { module, digest } => format!("unloads {module} {}", n(digest)),
        Action::RunSmoke { module, run } => format!("checks {module} {} {:?}", n(&run.digest), run.via),
        Action::Observe { module, observe } => {
            format!(
                "observes {module} {:?}",
                observe.map(|observe| (observe.rollout, observe.step))
            )
        }
        Action::Alarm(alarm) => format!("ALARM {alarm}"),
    }
}
