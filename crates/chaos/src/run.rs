//! What all parts of a run share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::acks::Acks;
use crate::fleet::{Fleet, lock};
use crate::report::Tally;

/// Violations that are kept in words; the rest are counted.
const VIOLATIONS_KEPT_MAX: usize = 50;
/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// A run.
pub(crate) struct Run {
    pub(crate) dir: PathBuf,
    pub(crate) fleet: Fleet,
    pub(crate) acks: Acks,
    pub(crate) tally: Tally,
    /// Faults have ended, and no new deployments are asked for.
    pub(crate) faults_over: AtomicBool,
    /// All is known: everybody ends.
    pub(crate) over: AtomicBool,
    /// The strategy that each module's deployment is in now.
    running: Mutex<BTreeMap<&'static str, &'static str>>,
    violations: Mutex<(Vec<String>, u64)>,
    started: Instant,
    timeline: Mutex<File>,
    trace: bool,
}

impl Run {
    pub(crate) fn new(dir: &Path, fleet: Fleet, trace: bool) -> std::io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            acks: Acks::new(fleet.server.http),
            fleet,
            tally: Tally::default(),
            faults_over: AtomicBool::new(false),
            over: AtomicBool::new(false),
            running: Mutex::default(),
            violations: Mutex::default(),
            started: Instant::now(),
            timeline: Mutex::new(File::create(dir.join("timeline.log"))?),
            trace,
        })
    }

    /// Notes what happened, with its time.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("{:8.3} {what}", self.started.elapsed().as_secs_f64());
        if self.trace {
            println!("{line}");
        }
        // The timeline helps people; a run doesn't end for it.
        let _ = writeln!(lock(&self.timeline), "{line}");
    }

    /// Notes that a promise was broken.
    pub(crate) fn violation(&self, what: &str) {
        self.say(&format!("VIOLATION {what}"));
        let line = format!("at {:.3} s: {what}", self.started.elapsed().as_secs_f64());
        let mut violations = lock(&self.violations);
        violations.1 += 1;
        if violations.0.len() < VIOLATIONS_KEPT_MAX {
            violations.0.push(line);
        }
    }

    /// Promises that were broken, and how many they are.
    pub(crate) fn violations(&self) -> (Vec<String>, u64) {
        lock(&self.violations).clone()
    }

    pub(crate) fn are_faults_over(&self) -> bool {
        self.faults_over.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes which strategy moves a module now.
    pub(crate) fn now_running(&self, module: &'static str, strategy: Option<&'static str>) {
        let mut running = lock(&self.running);
        match strategy {
            Some(strategy) => running.insert(module, strategy),
            None => running.remove(module),
        };
    }

    /// The strategies that run now.
    pub(crate) fn running(&self) -> Vec<&'static str> {
        lock(&self.running).values().copied().collect()
    }

    /// Waits until something is so. `false`: it was not in that time, or faults are over.
    pub(crate) fn wait_for(&self, longest: Duration, is_so: impl Fn() -> bool) -> bool {
        let end = Instant::now() + longest;
        while Instant::now() < end && !self.are_faults_over() {
            if is_so() {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    /// Lets time pass while faults go on; ends early when they are over.
    pub(crate) fn hold(&self, time: Duration) {
        self.wait_for(time, || false);
    }
}
