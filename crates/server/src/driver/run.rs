//! The loop.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::command::Command;
use hotswap_core::decide::{CheckResult, Input, ROUNDS_MAX, decide, wakeup};
use hotswap_core::event::Event;
use hotswap_core::ids::FleetId;
use hotswap_core::policy::Environment;
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::acks::Receipt;
use super::batch::Draft;
use super::effects::{Outstanding, Sessions};
use super::handle::{Driver, SubmitError};
use super::input::{
    CHECKS_WAITING_MAX, COMMANDS_WAITING_MAX, FLEET_WAITING_MAX, FleetInput, Origin, Outcome, Submission,
    URGENT_WAITING_MAX,
};
use super::recover::{RecoverError, recover};
use super::world::World;
use crate::audit::{AuditEntry, AuditKind, command_named};
use crate::checks::Checks;
use crate::clock::Clock;
use crate::enrolment::Credentials;
use crate::store::{Answer, FirstAnswer, IdempotencyKey, Store, StoreError};

/// Most inputs of a batch from each lane, so that one commit stays short.
const BATCH_MAX: usize = 512;
/// Reports alone are decided on at most this often: it bounds the work of a large fleet's heartbeats.
const TICK_PAUSE: Duration = Duration::from_millis(5);
/// The shortest time until the core is asked again when nothing came in.
const WAKE_MIN: Duration = Duration::from_millis(10);
/// While the disk is full, decisions that need no input are tried again this often.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// First answers remembered here. A retry that overtakes its first request's commit finds the answer here; all others
/// find it in the store, so this only has to outlast the queue.
const RECENT_ANSWERS_MAX: usize = 4 * COMMANDS_WAITING_MAX;
/// First answers are kept this long.
const ANSWERS_KEPT: Millis = Millis::from_secs(48 * 3_600);
/// How often older ones are forgotten.
const FORGET_PAUSE: Duration = Duration::from_secs(600);

/// Why the driver ended.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The log could not be folded.
    #[error("failed to recover from the log")]
    Recover(#[from] RecoverError),
    /// The environments are faulty.
    #[error("the configured environments are faulty: {0}")]
    Environments(String),
    /// The store failed: what is durable is not known, and only a new process can find out.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What the driver is made of.
pub struct DriverParts {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Environments to configure, where they are not the log's.
    pub environments: Option<Vec<Environment>>,
    /// A node without a report for this long counts as failed.
    pub heartbeat_timeout: Millis,
    /// Events between snapshots.
    pub snapshot_every: u64,
    /// Nodes' certificates, which go with their nodes.
    pub credentials: Arc<Credentials>,
    /// Ends the driver in order.
    pub shutdown: CancellationToken,
}

/// Recovers, begins an epoch, and runs. Returns once the epoch is durable; the future ends with the driver.
///
/// # Errors
/// The log could not be folded, or the store failed.
pub async fn start(
    parts: DriverParts,
    make_checks: impl FnOnce(Arc<World>, mpsc::Sender<CheckResult>) -> Checks,
) -> Result<
    (
        Driver,
        impl Future<Output = Result<(), DriverError>> + Send + 'static,
    ),
    DriverError,
> {
    let (state, leadership) = recover(parts.store.as_ref()).await?;
    let clock = Clock::resume(state.at, state.wall);
    let world = Arc::new(World::new(
        state.clone(),
        clock,
        parts.heartbeat_timeout,
        parts.credentials,
    ));
    let (commands, commands_in) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (urgent, urgent_in) = mpsc::channel(URGENT_WAITING_MAX);
    let (fleet, fleet_in) = mpsc::channel(FLEET_WAITING_MAX);
    let (checked, checks_in) = mpsc::channel(CHECKS_WAITING_MAX);
    let checks = make_checks(Arc::clone(&world), checked);
    let mut run = Run {
        lanes: Lanes {
            commands: commands_in,
            urgent: urgent_in,
            fleet: fleet_in,
            checks: checks_in,
        },
        snapshot_at: state.seq,
        state,
        epoch: leadership.epoch,
        store: parts.store,
        world: Arc::clone(&world),
        sessions: Sessions::default(),
        outstanding: Outstanding::new(checks),
        receipts: Vec::new(),
        recent: RecentAnswers::default(),
        snapshot_every: parts.snapshot_every,
        shutdown: parts.shutdown,
        last_tick: Instant::now(),
        // What became due while nobody ran, such as an expiry, is decided at once.
        wake: Some(Instant::now()),
        forget_at: Instant::now(),
    };
    run.begin(parts.environments).await?;
    Ok((
        Driver {
            commands,
            urgent,
            fleet,
            world,
        },
        run.run(),
    ))
}

struct Lanes {
    commands: mpsc::Receiver<Submission>,
    urgent: mpsc::Receiver<Submission>,
    fleet: mpsc::Receiver<FleetInput>,
    checks: mpsc::Receiver<CheckResult>,
}

#[derive(Default)]
struct Arrived {
    submissions: Vec<Submission>,
    fleet: Vec<FleetInput>,
    checks: Vec<CheckResult>,
}

/// An answer that waits for its events to be durable.
type Waiting = (oneshot::Sender<Result<Answer, SubmitError>>, Answer);

struct Run {
    lanes: Lanes,
    /// The working State: ahead of the committed one only while a batch is under way.
    state: State,
    epoch: u64,
    store: Arc<dyn Store>,
    world: Arc<World>,
    sessions: Sessions,
    outstanding: Outstanding,
    receipts: Vec<Receipt>,
    recent: RecentAnswers,
    snapshot_at: u64,
    snapshot_every: u64,
    shutdown: CancellationToken,
    last_tick: Instant,
    wake: Option<Instant>,
    forget_at: Instant,
}

impl Run {
    /// The first batch of this process: the fleet's identity where there is none, the epoch, the environments.
    async fn begin(&mut self, environments: Option<Vec<Environment>>) -> Result<(), DriverError> {
        let now = self.world.now();
        let mut draft = Draft::default();
        if self.state.fleet.is_none() {
            draft.add(
                &mut self.state,
                self.epoch,
                Event::FleetCreated {
                    fleet: FleetId(Uuid::new_v4()),
                },
                now,
            );
        }
        draft.add(
            &mut self.state,
            self.epoch,
            Event::EpochStarted { epoch: self.epoch },
            now,
        );
        let none_yet = self.state.environments.is_empty();
        let wanted = environments.or_else(|| none_yet.then(Environment::defaults));
        if let Some(environments) = wanted.filter(|wanted| *wanted != self.state.environments) {
            let configure = Input::Command(Box::new(Command::Configure { environments }));
            let decision = decide(&self.state, &self.world.observations(), configure, now);
            if let Some(Err(refusal)) = decision.reply {
                return Err(DriverError::Environments(refusal.to_string()));
            }
            self.fold(&mut draft, decision.events, now);
        }
        self.store.commit(draft.batch(&self.state, self.epoch)).await?;
        self.world.committed(draft.events());
        self.world.set_leads(true);
        self.outstanding.start(&self.state);
        Ok(())
    }

    async fn run(mut self) -> Result<(), DriverError> {
        while let Some(arrived) = self.arrive().await {
            if let Err(error) = self.turn(arrived).await {
                self.world.set_leads(false);
                return Err(error);
            }
        }
        self.world.set_leads(false);
        self.sessions.close_all("the server is shutting down");
        if self.state.seq > self.snapshot_at
            && let Err(error) = self.store.keep_snapshot(self.state).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no snapshot at the end; the next start folds more of the log"
            );
        }
        Ok(())
    }

    /// Waits for anything, then takes what is there. `None`: shut down.
    async fn arrive(&mut self) -> Option<Arrived> {
        let mut arrived = Arrived::default();
        let (mut urgent, mut commands) = (Vec::new(), Vec::new());
        let wake = self
            .wake
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
        let lanes = &mut self.lanes;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            _ = lanes.urgent.recv_many(&mut urgent, BATCH_MAX) => {}
            _ = lanes.checks.recv_many(&mut arrived.checks, BATCH_MAX) => {}
            _ = lanes.commands.recv_many(&mut commands, BATCH_MAX) => {}
            _ = lanes.fleet.recv_many(&mut arrived.fleet, BATCH_MAX) => {}
            () = sleep_until(wake) => {}
        }
        fill(&mut urgent, &mut lanes.urgent);
        fill(&mut arrived.checks, &mut lanes.checks);
        fill(&mut commands, &mut lanes.commands);
        fill(&mut arrived.fleet, &mut lanes.fleet);
        arrived.submissions = urgent;
        arrived.submissions.append(&mut commands);
        Some(arrived)
    }

    /// One batch: decide, commit, let out.
    async fn turn(&mut self, arrived: Arrived) -> Result<(), DriverError> {
        let now = self.world.now();
        let mut draft = Draft::default();
        let mut waiting = Vec::new();
        self.absorb(arrived.fleet, now);
        let pressing = !arrived.checks.is_empty() || !arrived.submissions.is_empty();
        for result in arrived.checks {
            self.outstanding.ended(&result);
            self.decide(&mut draft, Input::Check(result), now);
            draft.checks_due = true;
        }
        for submission in arrived.submissions {
            self.command(&mut draft, submission, now, &mut waiting);
        }
        let wake_due = self.wake.is_some_and(|wake| wake <= Instant::now());
        if !(pressing || wake_due || self.last_tick.elapsed() >= TICK_PAUSE) {
            self.wake = Some(
                self.wake
                    .unwrap_or(self.last_tick + TICK_PAUSE)
                    .min(self.last_tick + TICK_PAUSE),
            );
            return Ok(());
        }
        self.tick(&mut draft, now);
        let stored = self.commit(&draft).await?;
        self.let_out(&draft, waiting, stored);
        self.snapshot_if_due();
        let pause = wakeup(&self.state, &self.world.observations(), self.world.now());
        let pause = pause.map(|pause| Duration::from_millis(pause.0).max(WAKE_MIN));
        let pause = if stored { pause } else { Some(FULL_PAUSE) };
        self.wake = pause.map(|pause| Instant::now() + pause);
        Ok(())
    }

    fn absorb(&mut self, inputs: Vec<FleetInput>, now: Now) {
        for input in inputs {
            match input {
                FleetInput::Connected {
                    node,
                    session,
                    outbox,
                } => {
                    self.world.observe(|obs| obs.connected(&node, now));
                    self.sessions.connect(node, session, outbox);
                }
                FleetInput::Report { session, report } => {
                    if !self.sessions.is_current(&report.node, session) {
                        continue;
                    }
                    if report.hello.is_some() {
                        self.sessions.reported(&report.node);
                    }
                    self.receipts.extend(Receipt::of(&report));
                    self.world.observe(|obs| obs.absorb(&self.state, *report, now));
                }
                FleetInput::Disconnected { node, session } => {
                    if self.sessions.disconnect(&node, session) {
                        self.world.observe(|obs| obs.disconnected(&node, now));
                    }
                }
            }
        }
    }

    fn command(&mut self, draft: &mut Draft, submission: Submission, now: Now, waiting: &mut Vec<Waiting>) {
        let Submission {
            origin,
            command,
            idempotency,
            answer,
            reply,
        } = submission;
        if let Some(first) = idempotency.as_ref().and_then(|key| self.recent.find(key)) {
            match first {
                Ok(answer) => waiting.push((reply, answer)),
                Err(error) => drop(reply.send(Err(error))),
            }
            return;
        }
        let named = command_named(&command);
        let decision = decide(
            &self.state,
            &self.world.observations(),
            Input::Command(command),
            now,
        );
        let changed = !decision.events.is_empty();
        self.fold(draft, decision.events, now);
        let result = decision
            .reply
            .unwrap_or_else(|| Ok(hotswap_core::decide::Reply::default()));
        let outcome = result
            .as_ref()
            .map_or_else(hotswap_core::command::Refusal::code, |_| "done");
        draft.audit.push(entry_of(origin, named, outcome, now));
        let answer = answer(
            &self.state,
            Outcome {
                result: result.as_ref(),
                changed,
                now,
            },
        );
        if let Some(key) = idempotency {
            self.recent.note(&key, &answer);
            draft.answers.push(FirstAnswer {
                key,
                wall: now.wall,
                answer: answer.clone(),
            });
        }
        waiting.push((reply, answer));
    }

    fn decide(&mut self, draft: &mut Draft, input: Input, now: Now) {
        let decision = decide(&self.state, &self.world.observations(), input, now);
        self.fold(draft, decision.events, now);
    }

    /// Moves whatever can move, until nothing does.
    fn tick(&mut self, draft: &mut Draft, now: Now) {
        self.last_tick = Instant::now();
        if draft.events_len() > 0 {
            self.world.observe(|obs| obs.after_apply(&self.state));
        }
        for _ in 0..ROUNDS_MAX {
            let before = draft.events_len();
            self.decide(draft, Input::Tick, now);
            if draft.events_len() == before {
                return;
            }
            self.world.observe(|obs| obs.after_apply(&self.state));
        }
        tracing::error!("decisions did not come to rest; going on with the next batch");
    }

    fn fold(&mut self, draft: &mut Draft, events: Vec<Event>, now: Now) {
        for event in events {
            let epoch = self.state.epoch.max(self.epoch);
            draft.add(&mut self.state, epoch, event, now);
        }
    }

    /// `false`: the disk is full, and nothing was changed.
    async fn commit(&mut self, draft: &Draft) -> Result<bool, DriverError> {
        let forget = self.forget_at.elapsed() >= FORGET_PAUSE;
        if draft.is_empty() {
            return Ok(!self.world.is_read_only());
        }
        let mut batch = draft.batch(&self.state, self.epoch);
        if forget {
            self.forget_at = Instant::now();
            batch.forget_answers_before = Some(self.world.now().wall - ANSWERS_KEPT);
        }
        let begun = Instant::now();
        match self.store.commit(batch).await {
            Ok(()) => {
                self.world.counts().committed(begun.elapsed());
                self.epoch = self.state.epoch;
                self.world.committed(draft.events());
                self.world.set_read_only(false);
                Ok(true)
            }
            Err(error) if error.is_full() => {
                self.state = self.world.state().clone();
                for first in &draft.answers {
                    self.recent.forget(&first.key);
                }
                self.world.set_read_only(true);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn let_out(&mut self, draft: &Draft, waiting: Vec<Waiting>, stored: bool) {
        for (reply, answer) in waiting {
            // Whoever asked may have gone; the outcome stands all the same.
            drop(reply.send(if stored {
                Ok(answer)
            } else {
                Err(SubmitError::ReadOnly)
            }));
        }
        if stored {
            for node in &draft.removed {
                self.sessions.remove(node);
                self.world.observe(|obs| obs.forget(node));
            }
        }
        self.sessions
            .send_specs(&self.state, &self.world.observations(), &draft.nodes);
        self.sessions.acknowledge(&self.state, self.receipts.drain(..));
        if draft.checks_due {
            self.outstanding.start(&self.state);
        }
    }

    fn snapshot_if_due(&mut self) {
        if self.state.seq < self.snapshot_at + self.snapshot_every {
            return;
        }
        self.snapshot_at = self.state.seq;
        let (store, state) = (Arc::clone(&self.store), self.state.clone());
        tokio::spawn(async move {
            if let Err(error) = store.keep_snapshot(state).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no snapshot; the next start folds more of the log"
                );
            }
        });
    }
}

fn entry_of(
    origin: Origin,
    (action, deployment, detail): (&str, Option<hotswap_core::ids::DeploymentId>, String),
    outcome: &str,
    now: Now,
) -> AuditEntry {
    let entry = AuditEntry::done(now.wall, AuditKind::Command, action);
    AuditEntry {
        actor: origin.actor,
        token: origin.token,
        trace_id: origin.trace_id,
        address: origin.address,
        deployment,
        ..entry
    }
    .outcome(outcome)
    .detail(detail)
}

fn fill<T>(taken: &mut Vec<T>, lane: &mut mpsc::Receiver<T>) {
    while taken.len() < BATCH_MAX {
        let Ok(input) = lane.try_recv() else { return };
        taken.push(input);
    }
}

/// The newest first answers.
#[derive(Default)]
struct RecentAnswers {
    by_key: HashMap<(String, String), (String, Answer)>,
    order: VecDeque<(String, String)>,
}

impl RecentAnswers {
    fn find(&self, key: &IdempotencyKey) -> Option<Result<Answer, SubmitError>> {
        let (fingerprint, answer) = self.by_key.get(&(key.scope.clone(), key.key.clone()))?;
        Some(if *fingerprint == key.fingerprint {
            Ok(answer.clone())
        } else {
            Err(SubmitError::KeyReused)
        })
    }

    fn note(&mut self, key: &IdempotencyKey, answer: &Answer) {
        let place = (key.scope.clone(), key.key.clone());
        self.by_key
            .insert(place.clone(), (key.fingerprint.clone(), answer.clone()));
        self.order.push_back(place);
        if self.order.len() > RECENT_ANSWERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }

    fn forget(&mut self, key: &IdempotencyKey) {
        self.by_key.remove(&(key.scope.clone(), key.key.clone()));
    }
}
