//! The loop around the core's machine: carries out its actions, answers with its inputs, and decides nothing.

mod health;
mod ledger_writer;
mod loaded;
mod observer;
mod reports;
mod totals;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_core::reconcile::{Action, Ledger, NodeInput, Reconciler};
use hotswap_core::report::{Hello, ReleaseStatus};
use hotswap_core::spec::Observe;
use hotswap_core::time::{CoreTime, Millis};
use hotswap_runtime::{BoxFuture, Runtimes};
use hotswap_trust::Gate;
use hotswap_wire::ServerMessage;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) use health::HealthMeter;
pub(crate) use ledger_writer::LedgerWriter;
pub use totals::Stats;
pub(crate) use totals::Totals;

use crate::fetch::Packages;
use crate::ingress::{Ingress, Release};
use crate::meter::Meter;
use crate::metrics::Line;
use crate::secrets::Secrets;
use crate::session::SessionEvent;
use crate::spans::NodeSpans;
use loaded::Loaded;
use observer::Observer;
use reports::Reports;
use work::Done;

/// How often the loaded releases are asked how they are.
const HEALTH_EVERY: Millis = Millis(200);
/// Answers of workers that wait for the driver.
const DONE_QUEUED_MAX: usize = 256;
/// Answers that are taken in before the time is looked at again.
const TURN_MAX: usize = 256;
/// Longest wait for the last ledger.
const LAST_WRITE_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for releases that are on their way to where they act: nobody else may have the node meanwhile, and who
/// takes it over waits for somewhat longer.
const LAST_ENTRY_TIME_MAX: Duration = Duration::from_secs(60);

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) writer: LedgerWriter,
    pub(crate) ledger: Ledger,
    pub(crate) hello: Hello,
    pub(crate) heartbeat: Duration,
    pub(crate) ingress_addr: SocketAddr,
    pub(crate) ingress: Ingress,
    pub(crate) meter: Meter,
    pub(crate) totals: Totals,
    pub(crate) line: Arc<Line>,
    pub(crate) spans: NodeSpans,
    pub(crate) packages: Arc<Packages>,
    /// Whose modules may run here.
    pub(crate) gate: Gate,
    /// What modules' values name.
    pub(crate) secrets: Secrets,
    pub(crate) runtimes: Runtimes,
}

/// A node's driver.
pub(crate) struct Driver {
    machine: Reconciler,
    started: Instant,
    parts: Parts,
    loaded: Loaded,
    observer: Observer,
    reports: Reports,
    done: (mpsc::Sender<Done>, mpsc::Receiver<Done>),
    tasks: TaskTracker,
    /// Ends the work that is under way when the driver ends, in whatever way.
    ended: CancellationToken,
    _ends: DropGuard,
    /// For which releases which packages are being prepared.
    preparing: BTreeSet<(Digest, Digest)>,
    /// Releases that are being drained, and how often at once.
    closing: BTreeMap<(ModuleName, Digest), u32>,
    collected: Option<BTreeSet<Digest>>,
    /// The modules that the runtimes were told of last, of all that the node has since a spec was heard.
    retained: Option<BTreeSet<ModuleName>>,
    heard_spec: bool,
    /// Releases that are on their way to where they act, of which the machine isn't told yet.
    entering: Vec<(ModuleName, Digest)>,
    /// How many are on their way.
    under_way: usize,
    health_at: CoreTime,
    /// Told once what the ledger wants served is served, or can't be.
    booted: Option<oneshot::Sender<Booted>>,
}

/// What came of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Booted {
    /// Everything that was served before is served.
    Whole,
    /// Something can't be.
    Lacking,
}

/// Releases that serve without a driver, until they are closed.
pub(crate) struct Left {
    loaded: Loaded,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Left")
            .field("releases", &self.loaded.all().count())
            .finish()
    }
}

impl Left {
    /// Ends them. The ingress has stopped before.
    pub(crate) async fn close(self) {
        // At once: a process may take its time to end.
        let closing = TaskTracker::new();
        for release in self.loaded.all() {
            let release = Arc::clone(release);
            closing.spawn(async move { release.close(Duration::ZERO).await });
        }
        closing.close();
        closing.wait().await;
    }
}

impl Driver {
    /// Boots from the ledger. `booted` is told once what was served before is served again, or can't be.
    pub(crate) fn boot(parts: Parts, booted: oneshot::Sender<Booted>) -> Self {
        let started = Instant::now();
        let node = parts.writer.node.clone();
        let (machine, actions) = Reconciler::boot(node.clone(), parts.ledger.clone(), CoreTime(0));
        let ended = CancellationToken::new();
        let mut driver = Self {
            machine,
            started,
            loaded: Loaded::new(parts.ingress.clone(), parts.meter.clone()),
            observer: Observer::default(),
            reports: Reports::new(
                node,
                parts.writer.incarnation,
                parts.hello.clone(),
                parts.heartbeat,
                HealthMeter::new(parts.totals.clone()),
            ),
            parts,
            done: mpsc::channel(DONE_QUEUED_MAX),
            tasks: TaskTracker::new(),
            _ends: ended.clone().drop_guard(),
            ended,
            preparing: BTreeSet::new(),
            closing: BTreeMap::new(),
            collected: None,
            retained: None,
            heard_spec: false,
            entering: Vec::new(),
            under_way: 0,
            health_at: CoreTime(0),
            booted: Some(booted),
        };
        driver.carry_out(actions);
        driver
    }

    /// Runs until `stop`, then makes the ledger say so. What is loaded goes on serving, and the data folder is free.
    pub(crate) async fn run(
        mut self,
        mut session: mpsc::Receiver<SessionEvent>,
        stop: CancellationToken,
    ) -> Left {
        let mut session_is_over = false;
        loop {
            self.turn();
            let wake_at = self.started + Duration::from_millis(self.wake_at().0);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.done.1.recv() => self.finish(done),
                event = session.recv(), if !session_is_over => match event {
                    Some(event) => self.hear(event),
                    None => session_is_over = true,
                },
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.shut_down().await
    }

    fn now(&self) -> CoreTime {
        CoreTime(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Everything that is due now.
    fn turn(&mut self) {
        for _ in 0..TURN_MAX {
            match self.done.1.try_recv() {
                Ok(done) => self.finish(done),
                Err(_) => break,
            }
        }
        let now = self.now();
        if self.machine.wake_at().is_some_and(|at| at <= now) {
            self.step(NodeInput::Tick);
        }
        if now >= self.health_at {
            self.health_at = now + HEALTH_EVERY;
            self.look_at_health(now);
        }
        self.observer.close_due(now);
        self.retain();
        let changed = self.machine.take_changed();
        self.reports.note(changed);
        self.reports.send_due(&self.machine, &mut self.observer, now);
        self.look_whether_booted();
    }

    fn wake_at(&self) -> CoreTime {
        let wakes = [
            self.machine.wake_at(),
            self.observer.wake_at(),
            self.reports.wake_at(&self.machine, &self.observer),
            Some(self.health_at),
        ];
        wakes
            .into_iter()
            .flatten()
            .min()
            .expect("health is always looked at again")
    }

    fn step(&mut self, input: NodeInput) {
        let actions = self.machine.step(input, self.now());
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::WriteLedger(ledger) => {
                    let done = self.done.0.clone();
                    self.tasks.spawn(self.parts.writer.clone().write(ledger, done));
                }
                Action::Prepare {
                    module,
                    digest,
                    package,
                } => self.prepare(module, digest, package),
                Action::Load {
                    module,
                    release,
                    values,
                } => {
                    let prepared = self.loaded.prepared(&release.digest).cloned();
                    let span = self.parts.spans.begin("load", &module, Some(release.digest));
                    let around = (self.parts.secrets.clone(), self.machine.node().clone());
                    self.work(async move {
                        let done = work::load(prepared, around, module, release, values).await;
                        if let Done::Loaded { result, .. } = &done {
                            span.end(result.as_ref().err().map(String::as_str));
                        }
                        done
                    });
                }
                Action::Route { module, routes } => {
                    let now = self.now();
                    let first = routes.first().map(|(digest, _)| *digest);
                    let span = self.parts.spans.begin("switch", &module, first);
                    let entering = self.loaded.route(&module, &routes, now);
                    span.end(None);
                    let trace_id = self.parts.spans.trace_id(&module);
                    tracing::info!(%module, ?routes, trace_id, "serves");
                    for (digest, entered) in entering {
                        self.enter(&module, digest, entered);
                    }
                }
                Action::Preview { module, digest } => self.loaded.preview(&module, digest),
                Action::Unload { module, digest } => self.unload(&module, digest),
                Action::RunSmoke { module, run } => {
                    let release = self.loaded.get(&module, &run.digest).cloned();
                    self.work(work::smoke(release, self.parts.ingress_addr, module, run));
                }
                Action::Observe { module, observe } => self.observe(&module, observe),
                Action::Alarm(alarm) => tracing::error!(%alarm, "the server's spec was refused"),
            }
        }
        for (module, digest) in std::mem::take(&mut self.entering) {
            self.step(NodeInput::Entering { module, digest });
        }
    }

    /// Waits beside everything else until a release is where it acts. Work in the kernel is never given up.
    fn enter(&mut self, module: &ModuleName, digest: Digest, entered: BoxFuture<'static, ()>) {
        self.entering.push((module.clone(), digest));
        self.under_way += 1;
        let (module, done) = (module.clone(), self.done.0.clone());
        self.tasks.spawn(async move {
            entered.await;
            // A driver that is gone needs no answer.
            let _ = done.send(Done::Entered { module, digest }).await;
        });
    }

    /// Starts work whose end is heard later; it is given up when the driver ends.
    fn work(&self, work: impl Future<Output = Done> + Send + 'static) {
        let (done, ended) = (self.done.0.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            if let Some(end) = ended.run_until_cancelled(work).await {
                // A driver that is gone needs no answer.
                let _ = done.send(end).await;
            }
        });
    }

    fn prepare(&mut self, module: ModuleName, digest: Digest, package: Digest) {
        if let Some(prepared) = self.loaded.prepared(&package).cloned() {
            let result = if prepared.manifest().name == module {
                Ok(prepared)
            } else {
                Err("it is another module's".to_owned())
            };
            self.work(async move {
                Done::Prepared {
                    module,
                    digest,
                    result,
                }
            });
            return;
        }
        self.preparing.insert((digest, package));
        let (packages, runtimes) = (Arc::clone(&self.parts.packages), self.parts.runtimes.clone());
        let gate = self.parts.gate.clone();
        let span = self.parts.spans.begin("verify", &module, Some(package));
        self.work(async move {
            let done = work::prepare(packages, gate, runtimes, module, (digest, package)).await;
            if let Done::Prepared { result, .. } = &done {
                span.end(result.as_ref().err().map(String::as_str));
            }
            done
        });
    }

    fn unload(&mut self, module: &ModuleName, digest: Digest) {
        let Some(release) = self.loaded.remove(module, &digest) else {
            return;
        };
        // Its last counts, since another one has just taken its place: nobody asks again.
        release.take_tally();
        release.instance().dismiss();
        let key = (module.clone(), digest);
        *self.closing.entry(key.clone()).or_insert(0) += 1;
        let done = self.done.0.clone();
        let span = self.parts.spans.begin("drain", module, Some(digest));
        self.tasks.spawn(async move {
            let cut = close(&release).await;
            let cut = (cut > 0).then(|| format!("{cut} requests were cut at the deadline"));
            span.end(cut.as_deref());
            let (module, digest) = key;
            // A driver that is gone needs no answer.
            let _ = done.send(Done::Closed { module, digest }).await;
        });
    }

    /// A release's last request has ended. Its series goes too, unless the release was loaded again meanwhile: then
    /// it counts on.
    fn closed(&mut self, module: ModuleName, digest: Digest) {
        let key = (module, digest);
        let left = self.closing.get(&key).map_or(0, |count| count - 1);
        if left > 0 {
            self.closing.insert(key, left);
            return;
        }
        self.closing.remove(&key);
        if self.loaded.get(&key.0, &digest).is_none() {
            self.parts.totals.forget(&key.0, digest);
        }
    }

    fn observe(&mut self, module: &ModuleName, observe: Option<Observe>) {
        let now = self.now();
        let next = observe.and_then(|observe| {
            let candidate = self.loaded.get(module, &observe.candidate)?;
            let control = observe
                .control
                .and_then(|control| self.loaded.get(module, &control));
            Some((observe, Arc::clone(candidate), control.cloned()))
        });
        self.observer.observe(module, next, now);
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Written { version } => {
                self.step(NodeInput::LedgerWritten { version });
                self.collect();
            }
            Done::Prepared {
                module,
                digest,
                result,
            } => {
                self.preparing.retain(|(prepared, _)| *prepared != digest);
                if let Err(reason) = &result {
                    let trace_id = self.parts.spans.trace_id(&module);
                    tracing::warn!(%module, release = %digest, %reason, trace_id, "a package could not be prepared");
                }
                let result = result.map(|prepared| self.loaded.keep_prepared(prepared));
                self.step(NodeInput::Prepared {
                    module,
                    digest,
                    result,
                });
            }
            Done::Loaded {
                module,
                digest,
                result,
            } => {
                if let Err(reason) = &result {
                    let trace_id = self.parts.spans.trace_id(&module);
                    tracing::warn!(%module, release = %digest, %reason, trace_id, "a release could not be loaded");
                }
                let result = result.map(|instance| self.loaded.add(module.clone(), instance));
                self.step(NodeInput::Loaded {
                    module,
                    digest,
                    result,
                });
            }
            Done::Entered { module, digest } => {
                self.under_way -= 1;
                if let Some(result) = self.loaded.entered(&module, &digest) {
                    if let Err(reason) = &result {
                        let trace_id = self.parts.spans.trace_id(&module);
                        tracing::warn!(%module, release = %digest, %reason, trace_id, "a release is not where it acts");
                    }
                    self.step(NodeInput::Health {
                        module,
                        digest,
                        result,
                    });
                }
            }
            Done::Closed { module, digest } => self.closed(module, digest),
            Done::Smoked { module, outcome } => self.step(NodeInput::Smoke { module, outcome }),
        }
    }

    fn hear(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Opening(line) => {
                self.observer.resend_all();
                let now = self.now();
                self.reports.opened(line, now);
            }
            SessionEvent::Closed => {
                self.parts.line.set(false);
                self.reports.closed();
            }
            SessionEvent::Heard(ServerMessage::Spec(spec)) => {
                self.parts.spans.learn(&spec);
                self.step(NodeInput::Spec(spec));
                self.heard_spec = true;
            }
            SessionEvent::Heard(ServerMessage::Ack(ack)) => {
                ack.intervals
                    .iter()
                    .for_each(|interval| self.observer.acked(interval));
                for veto in ack.vetoes {
                    let (module, rollout, release) = (veto.module, veto.rollout, veto.release);
                    self.step(NodeInput::Acked {
                        module,
                        rollout,
                        release,
                    });
                }
            }
            SessionEvent::Heard(ServerMessage::Settings(settings)) => {
                self.parts.line.set(true);
                if let Some(ours) = self.machine.ledger().fleet.filter(|ours| *ours != settings.fleet) {
                    let theirs = settings.fleet;
                    tracing::error!(%ours, %theirs, "the server is another fleet's: its specs are refused; what runs goes on");
                }
                self.reports.set_heartbeat(settings.heartbeat);
            }
        }
    }

    fn look_at_health(&mut self, now: CoreTime) {
        let modules = &self.machine.ledger().modules;
        let on_trial = |module: &ModuleName| Some(modules.get(module)?.trial.as_ref()?.release.id());
        let stable = |module: &ModuleName| modules.get(module)?.committed.clone();
        for (module, digest, result) in self.loaded.health_changes(on_trial, stable, now) {
            if let Err(reason) = &result {
                let trace_id = self.parts.spans.trace_id(&module);
                tracing::warn!(%module, release = %digest, %reason, trace_id, "a release's health turned");
            }
            self.step(NodeInput::Health {
                module,
                digest,
                result,
            });
        }
    }

    /// Tells the runtimes which modules there are, so that what others left outside of this process goes: where none of
    /// their releases could be loaded, nothing is unloaded. Before the server's word the ledger may not name all.
    fn retain(&mut self) {
        if !self.heard_spec {
            return;
        }
        let modules: BTreeSet<ModuleName> = self.machine.statuses().keys().cloned().collect();
        if self.retained.as_ref() == Some(&modules) {
            return;
        }
        for runtime in self.parts.runtimes.all() {
            let retained = runtime.retain(self.machine.node().as_str(), &modules);
            self.tasks.spawn(retained);
        }
        self.retained = Some(modules);
    }

    /// Removes packages that neither the durable ledger nor the one to come names.
    fn collect(&mut self) {
        let mut keep = self.machine.ledger().packages();
        keep.extend(self.preparing.iter().map(|(_, package)| *package));
        if self.collected.as_ref() == Some(&keep) {
            return;
        }
        self.loaded.collect(&keep);
        self.collected = Some(keep.clone());
        let store = self.parts.packages.store().clone();
        self.tasks.spawn(async move {
            if let Ok(Err(error)) = spawn_blocking(move || store.collect(&keep)).await {
                tracing::warn!(%error, "packages that nothing names could not be removed");
            }
        });
    }

    /// Whether everything that the ledger wants served is served, or failed.
    fn look_whether_booted(&mut self) {
        let Some(booted) = self.booted.take() else { return };
        let statuses = self.machine.statuses();
        let mut came_to = Some(Booted::Whole);
        for (module, entry) in &self.machine.ledger().modules {
            let Some(status) = statuses.get(module) else {
                continue;
            };
            let failed = |status: &ReleaseStatus| matches!(status, ReleaseStatus::Failed { .. });
            if entry.serving.is_empty() || !status.routes.is_empty() {
                continue;
            }
            came_to = if status.releases.values().any(failed) {
                came_to.map(|_| Booted::Lacking)
            } else {
                None
            };
        }
        match came_to {
            // Whoever started it may have given up waiting.
            Some(came_to) => {
                let _ = booted.send(came_to);
            }
            None => self.booted = Some(booted),
        }
    }

    async fn shut_down(mut self) -> Left {
        self.ended.cancel();
        self.step(NodeInput::Shutdown);
        let last = self.machine.ledger().version;
        let written = async {
            while let Some(done) = self.done.1.recv().await {
                if let Done::Entered { .. } = done {
                    self.under_way -= 1;
                } else if let Done::Written { version } = done {
                    if version >= last {
                        break;
                    }
                    let now = CoreTime(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
                    for action in self.machine.step(NodeInput::LedgerWritten { version }, now) {
                        if let Action::WriteLedger(ledger) = action {
                            self.tasks
                                .spawn(self.parts.writer.clone().write(ledger, self.done.0.clone()));
                        }
                    }
                }
            }
        };
        if tokio::time::timeout(LAST_WRITE_TIME_MAX, written).await.is_err() {
            tracing::error!("the ledger could not be written: the next boot counts as one after a crash");
        }
        let entered = async {
            while self.under_way > 0 {
                match self.done.1.recv().await {
                    Some(Done::Entered { .. }) => self.under_way -= 1,
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if tokio::time::timeout(LAST_ENTRY_TIME_MAX, entered).await.is_err() {
            tracing::error!(
                "a release is still on its way to where it acts; whoever comes next makes sure of it"
            );
        }
        self.parts.runtimes.release().await;
        Left { loaded: self.loaded }
    }
}

/// Drains a release within the time that its manifest gives; returns how many requests that cut.
async fn close(release: &Release) -> u64 {
    let manifest = release.instance().manifest();
    let closed = release.close(manifest.drain_deadline.0).await;
    if closed.cut > 0 {
        tracing::warn!(
            module = %manifest.name,
            version = %manifest.version,
            cut = closed.cut,
            "requests were cut at the drain's deadline"
        );
    }
    closed.cut
}
