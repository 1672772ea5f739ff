//! What was measured, against what is wanted and what was measured before.

mod figure;
mod machine;
mod recorded;

pub(crate) use figure::{Figure, Report, Target};
pub(crate) use machine::machine;
pub(crate) use recorded::{compare, record};
