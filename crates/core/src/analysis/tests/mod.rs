//! Tests of the judge.

#![expect(clippy::cast_possible_truncation, reason = "simulated counts are small")]

mod before_after;
mod complaints;
mod histogram;
mod levels;
mod plan;
mod power;
mod published;
mod rng;
mod total;
mod two_arm;
mod type_one;
mod verdicts;
