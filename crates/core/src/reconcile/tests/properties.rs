//! What holds whatever happens, in whatever order, with the power cut at any point.

use proptest::prelude::*;

use super::*;
use crate::spec::SmokeVia;

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few dozen live at once, in a test")]
enum Op {
    /// A newer spec, and by how much its rollout is newer.
    Spec(u64, Option<ModuleSpec>),
    /// One that was sent before, again.
    OldSpec(usize),
    Write,
    Prepare(u8, bool),
    Load(u8, bool),
    Health(u8, bool),
    Pass(u64),
    Ack,
    Crash,
    Shutdown,
}

fn module_spec() -> impl Strategy<Value = Option<ModuleSpec>> {
    let n = || 1..5_u8;
    let rest = (n(), proptest::option::of(n()), proptest::option::of(n())).prop_map(
        |(serving, standby, prefetch)| {
            let mut releases = vec![serving];
            releases.extend(standby.filter(|&standby| standby != serving));
            ModuleSpec {
                values: std::collections::BTreeMap::new(),
                prefetch: prefetch.map(digest).into_iter().collect(),
                ..at_rest(0, &releases)
            }
        },
    );
    let trial = (n(), proptest::option::of(n()), 1..=100_u8).prop_map(|(candidate, base, weight)| {
        on_trial(0, candidate, base.filter(|&base| base != candidate), weight)
    });
    let preview = (n(), proptest::option::of(n())).prop_map(|(candidate, base)| {
        let run = SmokeRun {
            rollout: RolloutId(0),
            step: 0,
            digest: digest(candidate),
            via: SmokeVia::Preview,
        };
        let trial = on_trial(0, candidate, base.filter(|&base| base != candidate), 0);
        let routes = trial
            .routes
            .iter()
            .copied()
            .filter(|(served, _)| *served != digest(candidate))
            .collect();
        ModuleSpec {
            preview: Some(digest(candidate)),
            smoke: Some(run),
            routes,
            ..trial
        }
    });
    prop_oneof![
        1 => Just(None),
        4 => rest.prop_map(Some),
        8 => trial.prop_map(Some),
        2 => preview.prop_map(Some),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 1..5_u8;
    prop_oneof![
        6 => (0..3_u64, module_spec()).prop_map(|(newer, spec)| Op::Spec(newer, spec)),
        2 => (0..8_usize).prop_map(Op::OldSpec),
        12 => Just(Op::Write),
        12 => (n(), prop::bool::weighted(0.9)).prop_map(|(n, ok)| Op::Prepare(n, ok)),
        12 => (n(), prop::bool::weighted(0.9)).prop_map(|(n, ok)| Op::Load(n, ok)),
        4 => (n(), prop::bool::weighted(0.4)).prop_map(|(n, ok)| Op::Health(n, ok)),
        4 => (0..3_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Ack),
        3 => Just(Op::Crash),
        1 => Just(Op::Shutdown),
    ]
}

fn result(ok: bool) -> Result<(), String> {
    if ok { Ok(()) } else { Err("it failed".to_owned()) }
}

struct World {
    rig: Rig,
    sent: Vec<NodeSpec>,
    rollout: u64,
}

impl World {
    fn apply(&mut self, op: Op) {
        let rig = &mut self.rig;
        match op {
            Op::Spec(newer, module_spec) => {
                self.rollout += newer;
                let module_spec = module_spec.map(|mut module_spec| {
                    module_spec.rollout = RolloutId(self.rollout);
                    if let Some(run) = &mut module_spec.smoke {
                        run.rollout = RolloutId(self.rollout);
                    }
                    module_spec
                });
                let sent = spec(self.sent.len() as u64 + 1, module_spec);
                self.sent.push(sent.clone());
                rig.input(NodeInput::Spec(sent));
            }
            Op::OldSpec(back) => {
                let Some(old) = self
                    .sent
                    .len()
                    .checked_sub(back + 1)
                    .map(|i| self.sent[i].clone())
                else {
                    return;
                };
                let newest = rig.machine.ledger().highest();
                let before = rig.machine.ledger().clone();
                let done = rig.done.len();
                rig.input(NodeInput::Spec(old.clone()));
                if old.generation <= newest {
                    assert_eq!(*rig.machine.ledger(), before, "an older generation has no effect");
                    assert_eq!(rig.done.len(), done, "an older generation has no effect");
                }
            }
            Op::Write => rig.finish_write(),
            Op::Prepare(n, ok) => rig.finish_prepare(digest(n), result(ok)),
            Op::Load(n, ok) => rig.finish_load(digest(n), result(ok)),
            Op::Health(n, ok) => rig.health(n, if ok { Ok(()) } else { Err("it is ill") }),
            Op::Pass(ms) => {
                rig.now = rig.now + Millis(ms);
                if rig.machine.wake_at().is_some_and(|at| at <= rig.now) {
                    rig.input(NodeInput::Tick);
                    assert!(
                        rig.machine.wake_at().is_none_or(|at| at > rig.now),
                        "a timer that is due is served"
                    );
                }
            }
            Op::Ack => {
                let veto = rig.machine.vetoes().next().cloned();
                if let Some(veto) = veto {
                    rig.input(NodeInput::Acked {
                        module: module(),
                        rollout: veto.rollout,
                        release: veto.release,
                    });
                }
            }
            Op::Crash => rig.crash(),
            Op::Shutdown => {
                rig.input(NodeInput::Shutdown);
                rig.finish_write();
                rig.finish_write();
                assert!(rig.disk.orderly);
                rig.crash();
            }
        }
        self.check();
    }

    /// What holds after every step, by what is durable and what is true.
    fn check(&self) {
        let rig = &self.rig;
        let Some(status) = rig.machine.statuses().get(&module()) else {
            assert!(rig.routes.is_empty());
            return;
        };
        assert_eq!(status.routes, rig.routes, "it reports what is true");
        assert_eq!(status.preview, rig.preview);
        // What a crash would leave: everything named is loaded or was loaded, so that it is complete in the cache.
        let entry = rig.entry();
        let sum: u32 = entry.serving.iter().map(|share| u32::from(share.weight)).sum();
        assert!(entry.serving.is_empty() || sum == 100);
        // A veto holds.
        let ledger = rig.machine.ledger();
        let spec = ledger.spec.as_ref().and_then(|spec| spec.modules.get(&module()));
        for kept in &ledger.vetoes {
            if spec.is_some_and(|spec| spec.rollout == kept.veto.rollout) {
                let left = kept.veto.release.digest;
                assert!(
                    entry_routes(ledger).iter().all(|digest| *digest != left),
                    "intends what it left"
                );
                assert_ne!(rig.preview, Some(left), "previews what it left");
                let base = kept.veto.base.as_ref().map(|base| base.digest);
                let stays = rig.routes.iter().any(|(digest, _)| *digest == left);
                assert!(
                    !stays || base.is_some_and(|base| !rig.loaded.contains(&base)),
                    "stays with what it left"
                );
            }
        }
    }
}

fn entry_routes(ledger: &Ledger) -> Vec<Digest> {
    let entry = ledger.modules.get(&module());
    entry
        .iter()
        .flat_map(|entry| &entry.serving)
        .map(|share| share.release.digest)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_is_safe_and_in_the_end_where_it_is_told(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World { rig: Rig::new(), sent: Vec::new(), rollout: 1 };
        for op in ops {
            world.apply(op);
        }
        // Faults end: all that is loaded recovers, and everything succeeds from now on.
        let rig = &mut world.rig;
        for n in 1..5 {
            rig.health(n, Ok(()));
        }
        if let Some(last) = world.sent.last() {
            rig.input(NodeInput::Spec(last.clone()));
        }
        rig.run();
        let ledger = rig.machine.ledger().clone();
        prop_assert_eq!(&ledger, &rig.disk, "all of it is durable");
        let wanted = world.sent.last().and_then(|spec| spec.modules.get(&module()));
        let vetoed = |wanted: &ModuleSpec| ledger.vetoes.iter().any(|kept| kept.veto.rollout == wanted.rollout);
        match wanted {
            Some(wanted) if !vetoed(wanted) => {
                prop_assert_eq!(&wanted.routes, &rig.routes);
                prop_assert_eq!(wanted.preview, rig.preview);
                let hold: BTreeSet<Digest> = wanted.releases.iter().map(|release| release.digest).collect();
                prop_assert!(hold.is_subset(&rig.loaded));
                let more: Vec<_> = rig.loaded.difference(&hold).copied().collect();
                let committed = rig.entry().committed.map(|release| release.digest);
                prop_assert!(more.iter().all(|digest| Some(*digest) == committed), "holds more than it is told");
                if !wanted.trial && !wanted.routes.is_empty() {
                    prop_assert_eq!(committed, Some(wanted.routes[0].0));
                }
            }
            Some(_) => {}
            None => prop_assert!(rig.loaded.is_empty() && rig.routes.is_empty() && rig.machine.statuses().is_empty()),
        }
        // Quiet.
        let done = rig.done.len();
        rig.now = rig.now + Millis(1_000_000);
        rig.input(NodeInput::Tick);
        prop_assert_eq!(rig.done.len(), done);
        prop_assert!(rig.writing.is_none());
        // And a boot of it leads to the same.
        let routes = rig.routes.clone();
        rig.input(NodeInput::Shutdown);
        rig.finish_write();
        rig.crash();
        rig.run();
        prop_assert_eq!(&rig.routes, &routes);
    }
}
