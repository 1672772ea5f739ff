//! A short run of every target with a fixed seed: what once failed, every real input, and some thousands nearly right.

use hotswap_fuzz::run::{Until, run};
use hotswap_fuzz::targets::TARGETS;

const INPUTS: u64 = 5_000;

#[test]
fn nothing_that_is_read_can_break_its_reader() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        for seed in &seeds {
            assert!(
                (target.read)(seed),
                "{} refuses what is right: {:?}",
                target.name,
                String::from_utf8_lossy(seed)
            );
        }
        let tried = run(target, 1, Until::Inputs(INPUTS))
            .unwrap_or_else(|failed| panic!("{}: {} ({})", target.name, failed.what, failed.file.display()));
        assert!(
            tried.right > 0 && tried.right < tried.inputs,
            "{}: {tried:?}",
            target.name
        );
    }
}
