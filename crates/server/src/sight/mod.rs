//! What the server shows of itself and of the fleet.
//!
//! Counters of what was decided, readings at the time of a scrape, measurements over time, deployments' traces, lines
//! in the log, and alarms. All of it reads what is committed, off the path of whoever commits; what has to outlast the
//! process is in a file of its own, whose loss costs charts and repeats messages, no more.

mod alarms;
mod counts;
mod cursor;
mod db;
mod follow;
mod journal;
mod metrics;
mod sampling;
mod series;
mod spans;
mod tracer;

pub use alarms::Alarms;
pub use counts::Counts;
pub use cursor::{Cursor, DEAD_LETTERS_MAX, DeadLetter};
pub use db::{SightDb, SightError};
pub(crate) use follow::Follower;
pub(crate) use journal::journal;
pub use metrics::Metrics;
pub use sampling::Sample;
pub use series::{Entity, NODES_FINE_MAX, Point, Series};
pub(crate) use tracer::Tracer;
