//! Rare branches, declared: a run over many seeds says which of them were never taken.

/// Declares the marks with their words.
macro_rules! marks {
    ($($name:ident => $text:literal,)*) => {
        /// A rare branch that a run took.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is described by its text")]
        pub enum Mark { $($name,)* }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What happened, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

marks! {
    // Rollouts.
    SilentExcluded => "a silent node was excluded on trial",
    LateExcluded => "a node was excluded at its step's deadline",
    SmokeExcluded => "a node was excluded for its smoke checks",
    VetoExcluded => "a node was excluded for its veto",
    NodeExcused => "a node was excused for being away before",
    MovedExcused => "a node was excused for having been moved",
    DrainedExcused => "a node was excused for having been drained",
    RemovedExcused => "a node was excused for having been removed",
    NodeEntered => "a node entered a running step late",
    VetoBecameException => "a veto became an exception",
    RolloutHeldForHealth => "a rollout was held for too few healthy nodes",
    RolloutHeldInconclusive => "a rollout was held without a verdict",
    HoldEndedByItself => "a hold ended by itself",
    RolloutPaused => "a rollout was paused",
    RolloutPromoted => "a rollout was promoted by a person",
    StepSkipped => "a step was skipped by a person",
    StepPassedInconclusive => "a step passed without a verdict, as its policy says",
    StepEmpty => "a step was passed by nobody being left",
    ValidationStarted => "Validation began",
    BackByVerdict => "the judge took a release back",
    BackByExclusions => "failed nodes took a release back",
    BackByValidation => "Validation took a release back",
    BackByExpiry => "a hold or a pause expired",
    BackInconclusive => "an inconclusive rollout went back",
    BackByAbort => "a rollout was aborted",
    BackBySupersede => "a held rollout was superseded",
    EvidenceLate => "evidence of an earlier step came late",
    StableSet => "a release became stable",
    Unloaded => "a module was unloaded from an environment",
    RolledBack => "a finished deployment was rolled back",
    EndedWithMissing => "a rollout ended with nodes missing",
    EndedEmpty => "a rollout ended since everyone had left",
    StageSkipped => "a stage was skipped: the release was there",
    Mends => "a release was rolled out to its exceptions only",
    ApprovalGiven => "an approval was given",
    ApprovalRefused => "an approval was refused",
    ApprovalNeedsMore => "one approved, and another person must",
    FreezeMet => "a deployment met a freeze",
    RevokedRefused => "a revoked release was asked for and refused",
    BelowMinimumRefused => "a version below the minimum was asked for and refused",
    ReleaseRevoked => "a release was revoked",
    ApprovalExpired => "an approval expired",
    NodeMoved => "a node was moved",
    NodeDrained => "a node was drained",
    NodeUndrained => "a drained node came back",
    NodeRemoved => "a node was removed",
    NodeRejoined => "a removed node came back with its old ledger",
    CheckFailed => "a check of the server's own failed",
    // Nodes.
    OlderSpecRefused => "an older spec was refused",
    SpecAfterSession => "a spec came after its session had ended",
    OldServersSpec => "a spec of a former leader came to a node",
    NodeVetoed => "a node left a release by itself",
    BootsVeto => "boots in a row on trial became a veto",
    BootedFromTrial => "a node booted with a release on trial",
    ServedAlone => "a node booted and served without a server",
    ReleaseKilledNode => "a release took its node down",
    StallReversed => "a load stalled and was reversed",
    StallStuck => "a load stalled, and so did its reversal",
    LoadTookDown => "a load took its node down",
    WatchdogRebooted => "a load hung until the watchdog rebooted its node",
    LoadRefused => "a load was refused: its node had gone down with it",
    FoundInPlace => "an agent found its release in its place in the kernel",
    LedgerWriteCut => "a node crashed while its ledger was being written",
    LedgerWriteThrough => "a ledger was durable and its node never heard of it",
    LedgerTorn => "a torn ledger was found at a boot",
    LedgerFull => "a ledger could not be written for want of room",
    OrderlyBoot => "a node booted after an orderly shutdown",
    // The server and its store.
    CrashBetweenAppendAndEffect => "the server crashed between append and effect",
    CommitThrough => "a batch was durable and its server never heard of it",
    CommitLost => "a batch that was under way was lost",
    TornTail => "a torn batch was found at a start",
    StoreWasFull => "a batch was refused for want of room",
    StoreFailed => "the store failed and the server ended itself",
    Fenced => "a former leader was fenced",
    TwoLeaders => "two servers believed to lead",
    LateEffects => "effects of a batch left after another leader had begun",
    FromSnapshot => "a server started from a snapshot and the tail",
    BackupRestored => "a backup was restored",
    NodeAhead => "a node knew more than a restored log",
    FleetAdopted => "a fleet was adopted after a restore",
    // Commands.
    FirstAnswerAgain => "a retry got the first answer",
    UnknownOutcome => "a command's outcome was not known, and it was asked again",
    Refused => "a command was refused",
    AbortInRollback => "an abort came during a way back",
    ApprovalRaced => "an approval was decided near its timeout",
    // Clocks.
    WallForward => "the wall clock jumped forward",
    WallBack => "the wall clock jumped back",
    LongPause => "a server was paused for longer than its lease",
}

/// How often each mark was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks(Vec<u64>);

impl Default for Marks {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Marks {
    /// It happened.
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often it happened.
    pub fn times(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }

    /// Those that never happened.
    pub fn never(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.times(*mark) == 0)
    }
}
