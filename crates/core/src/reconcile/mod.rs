//! A node's part: how it gets from what it runs to what it is told, across crashes and without a server.
//!
//! [`Reconciler`] is a pure machine. The agent carries out the [`Action`]s in order and answers with
//! [`NodeInput`]s; everything that must outlive a crash is in the [`Ledger`], which the agent writes whole.
//!
//! What holds at every step, and so at every crash:
//! - A release gets requests only once it is loaded and healthy; the former one serves until then.
//! - A release that this node has not committed gets requests only once a durable ledger says that it is on trial.
//!   So a node that dies of it knows at its next boot whom to blame, and whom to return to.
//! - Who gets requests is never unloaded, nor is the committed release while another is on trial.
//! - A veto wins over the spec until a later rollout of that module arrives.

mod io;
mod ledger;
mod machine;
mod slot;
mod target;

pub use io::{Action, Alarm, NodeInput};
pub use ledger::{Entry, KeptVeto, Ledger, Share, Trial};
pub use machine::{BOOTS_ON_TRIAL_MAX, Reconciler, VETOES_KEPT_MAX};

#[cfg(test)]
mod tests;
