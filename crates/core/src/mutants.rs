//! Deliberate bugs that show that the simulator sees. They exist only with the feature `mutants`, which the product is
//! never built with; without it every question below is the constant `false`.

/// Declares the mutants: name, word on the command line, what is wrong.
macro_rules! mutants {
    ($($name:ident $word:literal $text:literal)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is described by its text")]
        pub enum Mutant { $($name,)* }

        impl Mutant {
            /// Every mutant there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What is wrong, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

mutants! {
    CohortBound "cohort-bound" "a step takes one node more than its share"
    PauseIgnored "pause-ignored" "a paused rollout goes on"
    BudgetIgnored "budget-ignored" "steps start however many nodes are away"
    SoakSkipped "soak-skipped" "a gate passes without its soak"
    VerdictIgnored "verdict-ignored" "the judge's fail takes nothing back"
    HoldIgnored "hold-ignored" "a release on hold is promoted"
    LockIgnored "lock-ignored" "a rollout starts while another runs"
    FlipUnready "flip-unready" "blue-green flips before every node is ready"
    LastAttempted "last-attempted" "a rollback goes to the last release attempted"
    TurnsTwice "turns-twice" "a way back can be aborted"
    RollbackForgetsOne "rollback-forgets-one" "on the way back one node keeps the candidate"
    TurnUntold "turn-untold" "nodes aren't told that a rollout turned"
    ApprovalForgotten "approval-forgotten" "after a restart nobody's approval is waited for"
    ExceptionForgotten "exception-forgotten" "a node's own decision is forgotten when its rollout ends"
    IntervalTwice "interval-twice" "an interval that comes twice counts twice"
    AheadIgnored "ahead-ignored" "a restored server tells nodes that know more than it"
    OlderSpecTaken "older-spec-taken" "a node takes an older spec"
    VetoIgnored "veto-ignored" "a node forgets what it left by itself"
    SwitchBeforeLedger "switch-before-ledger" "a node switches before its ledger says so"
    // Those that only a driver around the core can have.
    EffectsFirst "effects-first" "specs and answers leave before their events are durable"
    LostFence "lost-fence" "the store appends for a leader that is one no more"
    SameEpoch "same-epoch" "a server starts under the epoch before it"
    AnswerForgotten "answer-forgotten" "first answers aren't kept with their events"
    FullForgets "full-forgets" "a batch that the disk refused stays decided"
    LedgerUnsynced "ledger-unsynced" "an agent calls its ledger durable before it is"
    RecordForgotten "record-forgotten" "a node forgets with which load it went down"
    StallHealthy "stall-healthy" "a load that stalled and was taken back counts as healthy"
}

#[cfg(feature = "mutants")]
mod active {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// One past the active mutant's place; none: 0.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// Makes one mutant active in this process, or none.
    pub fn activate(mutant: Option<super::Mutant>) {
        ACTIVE.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::Relaxed);
    }

    /// Whether this one is active.
    pub fn is_on(mutant: super::Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as usize + 1
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, is_on};

/// Whether this one is active: never.
#[cfg(not(feature = "mutants"))]
pub const fn is_on(_: Mutant) -> bool {
    false
}
