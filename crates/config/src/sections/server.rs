//! The control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use hotswap_package::{ByteSize, HumanDuration, PACKAGE_BYTES_MAX};

use crate::section::section;

section! {
    /// The control plane, `hotswap server`.
    pub struct Server {
        /// Folder of the server's data; made if it isn't there.
        data: PathBuf = "hotswap-data".into(),
        /// Where the API listens.
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 5000)),
        /// Where agents connect to.
        agents: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 5002)),
        /// How often agents report at least.
        heartbeat: HumanDuration = HumanDuration::secs(30),
        /// A node without a report for this long counts as failed.
        heartbeat_timeout: HumanDuration = HumanDuration::secs(120),
        /// The largest package that may be pushed.
        package_size_max: ByteSize = ByteSize(PACKAGE_BYTES_MAX),
        /// How long events are kept, e.g. `400days`; for ever if nothing is given. Events of deployments that aren't
        /// finished stay, and so do all deployments' records.
        events_kept: Option<HumanDuration> = None,
        /// Events between snapshots of the log: a start folds at most about so many.
        snapshot_every: u64 = 10_000,
        /// The trust file: which roots, revocation lists and signers of modules. Without one nothing can be pushed.
        trust: Option<PathBuf> = None,
        /// Take modules without a signature too: for trying out only.
        allow_unsigned: bool = false,
    }
}
