//! What breaks: every kind of fault that is injected, with what is promised under it.

use std::fmt;
use std::str::FromStr;

/// Declares the faults: name, word on the command line, component, promise.
macro_rules! faults {
    ($($name:ident $word:literal $component:literal $promise:literal)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is described by its word and promise")]
        pub enum Fault { $($name,)* }

        impl Fault {
            /// Every kind there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word, as the command line takes it.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it befalls.
            pub fn component(self) -> &'static str {
                match self { $(Self::$name => $component,)* }
            }

            /// What is promised under it.
            pub fn promise(self) -> &'static str {
                match self { $(Self::$name => $promise,)* }
            }
        }
    };
}

faults! {
    // Drawn for each message, write, batch or load.
    Delay "delay" "network" "a late message changes how long it takes, not what comes of it"
    Twice "twice" "network" "a message that comes twice, late and out of order counts once"
    Drop "drop" "network" "a lost message ends its session, and what it said is said again"
    SlowSync "slow-sync" "store" "nothing leaves before its batch is durable, however long that takes"
    SlowLedger "slow-ledger" "node" "no switch before the ledger says so, however long that takes"
    TornLedger "torn-ledger" "node" "half a ledger is never read; the one before it holds"
    Stall "stall" "node" "a load that is not over at its deadline is left; who served before it serves"
    LoadReboot "load-reboot" "node" "a node that went down with a load never loads that release again"
    // Drawn once for each node.
    Drift "drift" "clock" "a clock that runs fast or slow moves soaks and deadlines by no more than that"
    // Drawn for a moment of the run.
    Reset "reset" "network" "the node reconnects, and is told what it lacks"
    Cut "cut" "network" "nodes serve on; after it they converge"
    CutUp "cut-up" "network" "a node that is told and not heard counts as silent"
    CutDown "cut-down" "network" "a node that is heard and not told keeps what it has"
    LongCut "long-cut" "network" "a node away for most of the run converges when it is back"
    ServerCrash "server-crash" "server" "what was acknowledged is there; the rest is wholly there or not at all"
    ServerPause "server-pause" "server" "after a pause longer than its lease a former leader changes nothing"
    SecondServer "second-server" "server" "two servers on one store: one appends, the other is fenced"
    WallJump "wall-jump" "clock" "only what goes by wall time expires; soaks and deadlines don't move"
    StoreFull "store-full" "store" "commands are refused, nodes notice nothing, writing resumes by itself"
    StoreError "store-error" "store" "the server ends itself and recovers what is durable"
    TornBatch "torn-batch" "store" "half a batch is no batch"
    Restore "restore" "store" "nodes that know more than the log are left alone until a person adopts the fleet"
    NodeCrash "node-crash" "node" "at every point exactly one release, or one stated mix, would serve after a boot"
    NodeStop "node-stop" "node" "an orderly stop is no failed boot"
    NodePause "node-pause" "node" "a frozen node is silent; awake it goes on where it was"
    NodeSlow "node-slow" "node" "a slow node is waited for until its deadline"
    NodeWiped "node-wiped" "node" "a node that lost its disk is told everything anew"
    NodeFull "node-full" "node" "a full disk leaves what serves and the ledger intact"
    HookLost "hook-lost" "node" "who lost its hook is told ill; only who was on trial is left, the others go on when it is back"
}

impl Fault {
    /// Whether it is drawn for a moment of the run, not for each message or write.
    pub fn is_planned(self) -> bool {
        self >= Self::Reset
    }

    fn bit(self) -> u64 {
        1 << (self as u64)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|fault| fault.word() == word);
        found.ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|fault| fault.word()).collect();
            format!("no fault is called {word}; there are {}", known.join(", "))
        })
    }
}

/// Some kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FaultSet(u64);

impl FaultSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether a kind is in it.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// With one more.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | fault.bit())
    }

    /// Without those of another.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those in it.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }
}

impl FromIterator<Fault> for FaultSet {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        faults.into_iter().fold(Self::NONE, Self::with)
    }
}

/// A fault at its moment. Whom it hits and how long it lasts is drawn with it.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// When, in ms.
    pub at: u64,
    /// What.
    pub fault: Fault,
    /// Whom it hits: taken modulo those there are.
    pub whom: u64,
    /// How long or how far, in thousandths of what it may be at most.
    pub extent: u64,
}

/// How often each kind was injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected(Vec<u64>);

impl Default for Injected {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}

impl Injected {
    /// It was injected once more.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often it was.
    pub fn times(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }
}
