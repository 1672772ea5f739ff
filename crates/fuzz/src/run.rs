//! Runs a target, keeps what fails, and says how to see it again.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::mutate::Mutator;
use crate::seeds;
use crate::targets::Target;

/// How long one input may take: linear parsers need a thousandth of it.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);
/// Inputs between two looks at the clock.
const BURST: u64 = 200;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many inputs.
    Inputs(u64),
    /// After this long.
    Elapsed(Duration),
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Inputs.
    pub inputs: u64,
    /// Those that were right all the same.
    pub right: u64,
}

/// An input that failed.
#[derive(Debug)]
pub struct Failed {
    /// What it said.
    pub what: String,
    /// Where the input is kept.
    pub file: PathBuf,
}

/// Tries what once failed, every seed as it is, then changed ones.
///
/// # Errors
/// The first input that fails.
pub fn run(target: &Target, seed: u64, until: Until) -> Result<Tried, Failed> {
    let (began, seeds, mut tried) = (Instant::now(), (target.seeds)(), Tried::default());
    for input in seeds::found(target.name).iter().chain(&seeds) {
        one(target, input, &mut tried)?;
    }
    let mut mutator = Mutator::new(seed);
    loop {
        match until {
            Until::Inputs(most) if tried.inputs >= most => return Ok(tried),
            Until::Elapsed(most) if began.elapsed() >= most => return Ok(tried),
            _ => {}
        }
        for _ in 0..BURST {
            one(target, &mutator.input(&seeds), &mut tried)?;
        }
    }
}

/// Tries one input.
///
/// # Errors
/// It fails.
pub fn one(target: &Target, input: &[u8], tried: &mut Tried) -> Result<(), Failed> {
    let began = Instant::now();
    let read = panic::catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    tried.inputs += 1;
    let what = match read {
        Ok(right) => {
            tried.right += u64::from(right);
            let took = began.elapsed();
            if took <= INPUT_TIME_MAX {
                return Ok(());
            }
            format!("{} bytes took {} ms", input.len(), took.as_millis())
        }
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "it panicked".to_owned()),
    };
    Err(Failed {
        what,
        file: keep(target, input),
    })
}

/// Keeps an input under a name made of its content, so that it is kept once.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let folder = seeds::folder(target.name);
    let name = hotswap_package::digest_of(input).to_string();
    let file = folder.join(
        name.trim_start_matches("sha256:")
            .chars()
            .take(16)
            .collect::<String>(),
    );
    // Where it can't be kept, the message still says what happened and the number that drew it.
    drop(fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)));
    file
}
