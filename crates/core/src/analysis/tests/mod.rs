//! Tests of the judge.

#![expect(clippy::cast_possible_truncation, reason = "simulated counts are small")]

mod complaints;
mod histogram;
mod power;
mod rng;
mod total;
mod two_arm;
mod type_one;
mod verdicts;
