//! What is measured.

mod cold;
mod create;
mod deciding;
mod fleet;
mod heartbeat;
mod history;
mod ingress;
mod metering;
mod past;
mod product;
mod rollback;
mod series;
mod swap;
mod trust;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::report::Report;

/// Where and how it is measured.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Where the product's programs are.
    pub(crate) binaries: PathBuf,
    /// Where peers are built, unless they are left out.
    pub(crate) peers: Option<PathBuf>,
    /// A folder that goes with the run.
    pub(crate) dir: PathBuf,
    pub(crate) quick: bool,
}

impl Setting {
    /// The product.
    pub(crate) fn hotswap(&self) -> PathBuf {
        self.binaries.join("hotswap")
    }

    /// One of two, by how much time there is.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    pub(crate) fn seconds(&self, quick: f64, full: f64) -> Duration {
        Duration::from_secs_f64(self.pick(quick, full))
    }
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// A module behind the ingress, beside wasmtime serve, bare hyper and the module alone
    Ingress,
    /// Swaps under full and half load
    Swap,
    /// Load of a compiled component
    Cold,
    /// Signatures, logins and tokens
    Trust,
    /// Deployments created at 500 a second, reads meanwhile
    Create,
    /// 10,000 agents' sessions on one server
    Fleet,
    /// What a heartbeat costs, in bytes and time
    Heartbeat,
    /// Real agents, back on the former release
    Rollback,
    /// 100,000 past deployments
    History,
    /// The core: commands, folding, ticks while thousands wait
    Core,
    /// A day of measurements of 10,000 nodes on disk
    Series,
    /// The simulator's speed; the binary's size and start
    Product,
}

/// Those that were named, or all.
pub(crate) fn chosen(names: &[Bench]) -> Vec<Bench> {
    if names.is_empty() {
        Bench::value_variants().to_vec()
    } else {
        names.to_vec()
    }
}

impl Bench {
    pub(crate) async fn measure(self, setting: &Setting, report: &mut Report) -> Result<()> {
        match self {
            Self::Ingress => ingress::measure(setting, report).await,
            Self::Swap => swap::measure(setting, report).await,
            Self::Cold => cold::measure(setting, report).await,
            Self::Trust => trust::measure(setting, report).await,
            Self::Create => create::measure(setting, report).await,
            Self::Fleet => fleet::measure(setting, report).await,
            Self::Heartbeat => {
                heartbeat::measure(setting, report);
                Ok(())
            }
            Self::Rollback => rollback::measure(setting, report).await,
            Self::History => history::measure(setting, report).await,
            Self::Core => deciding::measure(setting, report),
            Self::Series => series::measure(setting, report).await,
            Self::Product => product::measure(setting, report).await,
        }
    }
}
