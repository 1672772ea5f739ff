//! Many runs on all cores, and what they come to.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Under a minute in all.
    pub(crate) quick: bool,
}

impl Effort {
    /// Runs of a cell with so many requests.
    pub(crate) fn runs(self, requests: u64) -> u64 {
        match (self.quick, requests) {
            (true, _) => 300,
            (false, 100_001..) => 1_000,
            (false, _) => 4_000,
        }
    }

    /// Runs of a cell that is costly for other reasons.
    pub(crate) fn fewer_runs(self) -> u64 {
        if self.quick { 100 } else { 1_000 }
    }
}

/// Runs so many times on all cores; results in the order of their seeds.
pub(crate) fn runs<T: Send>(count: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let work = || {
            let mut own = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return own;
                }
                own.push((seed, run(seed)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .flat_map(|own| own.expect("a run does not panic"))
            .collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The share of runs that did.
pub(crate) fn share(did: &[bool]) -> f64 {
    did.iter().filter(|did| **did).count() as f64 / did.len().max(1) as f64
}

/// The highest share of `runs` that a true share of `alpha` is believed to give: three standard errors above it.
pub(crate) fn allowed(alpha: f64, runs: u64) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / runs as f64).sqrt()
}

/// A quantile of how much it took; runs that never ended are `None`, and count as the longest.
pub(crate) fn quantile(took: &[Option<u64>], q: f64) -> Option<u64> {
    let mut sorted: Vec<u64> = took.iter().map(|took| took.unwrap_or(u64::MAX)).collect();
    sorted.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().filter(|took| *took != u64::MAX)
}

/// Cells in which a bound was checked, and those that broke it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) held: u32,
    pub(crate) broken: Vec<String>,
}

impl Checks {
    /// A share of wrong verdicts against α.
    pub(crate) fn false_alarms(&mut self, what: impl Fn() -> String, share: f64, alpha: f64, runs: u64) {
        self.that(share <= allowed(alpha, runs), || {
            format!("{}: wrong in {share:.4} of {runs} runs, α {alpha}", what())
        });
    }

    /// Anything else that has to be.
    pub(crate) fn that(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            self.held += 1;
        } else {
            self.broken.push(what());
        }
    }
}

/// Prints a table in Markdown.
pub(crate) fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("\n**{title}**\n");
    println!("| {} |", head.join(" | "));
    println!("|{}", "---|".repeat(head.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// A share as tables show it.
pub(crate) fn shown(share: f64) -> String {
    if share == 0.0 {
        "0".to_owned()
    } else {
        format!("{share:.4}").trim_start_matches('0').to_owned()
    }
}

/// A number of requests as tables show it.
pub(crate) fn number(requests: Option<u64>) -> String {
    requests.map_or_else(
        || "—".to_owned(),
        |requests| {
            let digits = requests.to_string();
            let mut text = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        },
    )
}

/// A rate as tables show it.
pub(crate) fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e4).round() / 100.0)
}
