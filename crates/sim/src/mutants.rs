//! Every deliberate bug, and whether the simulator sees it.

use std::process::ExitCode;
use std::time::Instant;

use hotswap_core::mutants::Mutant;

use crate::many::Many;
use crate::shape::Shape;

/// Seeds within which each must be found.
pub const SEEDS_MAX: u64 = 4_000;

/// Makes a mutant active by its word.
///
/// # Errors
/// There is no such mutant; names those there are.
pub fn activate(word: &str) -> Result<(), String> {
    let found = Mutant::ALL.iter().find(|mutant| mutant.word() == word);
    let known = || {
        Mutant::ALL
            .iter()
            .map(|mutant| mutant.word())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mutant = found.ok_or_else(|| format!("no mutant is called {word}; there are {}", known()))?;
    hotswap_core::mutants::activate(Some(*mutant));
    Ok(())
}

/// Runs each until it is found; prints which invariant caught it and how many seeds that took.
pub fn find_all(threads: usize) -> ExitCode {
    let began = Instant::now();
    let mut missed = Vec::new();
    let mut most = 0;
    println!(
        "{:<22} {:<22} {:>6}  what is wrong; how it showed",
        "mutant", "caught by", "seeds"
    );
    for &mutant in Mutant::ALL {
        hotswap_core::mutants::activate(Some(mutant));
        let total = Many {
            start: 0,
            seeds: SEEDS_MAX,
            threads,
            shape: Shape::default(),
            until_first: true,
            tells: false,
        }
        .run();
        match total.violations.iter().next() {
            Some((seed, violation)) => {
                most = most.max(seed + 1);
                let invariant = violation.invariant.to_string();
                println!(
                    "{:<22} {invariant:<22} {:>6}  {}; {}",
                    mutant.word(),
                    seed + 1,
                    mutant.text(),
                    violation.what.chars().take(120).collect::<String>()
                );
            }
            None => {
                println!(
                    "{:<22} {:<22} {SEEDS_MAX:>6}  {}",
                    mutant.word(),
                    "NOT FOUND",
                    mutant.text()
                );
                missed.push(mutant.word());
            }
        }
    }
    hotswap_core::mutants::activate(None);
    let seconds = began.elapsed().as_secs_f64();
    let found = Mutant::ALL.len() - missed.len();
    let all = Mutant::ALL.len();
    if missed.is_empty() {
        println!("OK: {found} of {all} mutants found, each within {most} seeds, in {seconds:.0} s");
        ExitCode::SUCCESS
    } else {
        println!(
            "FAILED: {found} of {all} mutants found in {seconds:.0} s; not: {}",
            missed.join(", ")
        );
        ExitCode::FAILURE
    }
}
