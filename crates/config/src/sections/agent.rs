//! The node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use hotswap_package::HumanDuration;

use super::NativeKind;
use crate::section::section;

section! {
    /// The node, `hotswap agent`.
    pub struct Agent {
        /// This node's name in the fleet.
        node: Option<String> = None,
        /// The environment to join. The server's record of the node wins.
        environment: Option<String> = None,
        /// Labels such as a zone: a rollout's cohorts are spread over them.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The server's address for agents: https://HOST:PORT, or http:// for a server on this machine that takes agents
        /// without TLS.
        #[schemars(extend("x-variable" = "HOTSWAP_AGENTS"))]
        server: String = "https://127.0.0.1:5002".to_owned(),
        /// File with the join token that the node gets its certificate by, once; else the variable HOTSWAP_JOIN_TOKEN, the
        /// token itself. `hotswap node token create` makes one.
        join_token_file: Option<PathBuf> = None,
        /// The certificate, in PEM, of the authority that the server's certificate must be by: instead of the one that the
        /// join token names.
        ca: Option<PathBuf> = None,
        /// Folder of the node's ledger and packages; `hotswap-agent-NODE` if none is given.
        data: Option<PathBuf> = None,
        /// Where the node takes requests.
        ingress: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)),
        /// Where the node's metrics are served for scraping, such as 127.0.0.1:9102; nowhere if nothing is given.
        metrics: Option<SocketAddr> = None,
        /// The receiver of traces: grpc://HOST:4317 or http://HOST:4318; empty, the OTEL_EXPORTER_OTLP_* variables say
        /// where. Without it nothing is recorded.
        #[schemars(extend("x-variable" = "HOTSWAP_OTLP"))]
        otlp: Option<String> = None,
        /// The share of users' requests that are recorded as spans, in %; those that their callers record always are.
        #[schemars(extend("x-variable" = "HOTSWAP_SAMPLE"))]
        sample_percent: f64 = 1.0,
        /// Where others reach the ingress, as HOST:PORT, if that is not where it listens.
        advertise: Option<String> = None,
        /// The host's name, for people; the system's if none is given.
        hostname: Option<String> = None,
        /// How often the node reports at least, until the server says otherwise.
        heartbeat: HumanDuration = HumanDuration::secs(30),
        /// How long requests in flight may go on after the agent was asked to stop.
        drain_deadline: HumanDuration = HumanDuration::secs(10),
        /// The trust file: which roots, revocation lists and signers of modules. Without one nothing runs.
        trust: Option<PathBuf> = None,
        /// Run modules without a signature too: for trying out only.
        allow_unsigned: bool = false,
        /// Folder of the secrets that modules' values name by `file:NAME`; those named by `env:NAME` are this process's
        /// variables `MODULE_SECRET_<MODULE>__NAME`.
        secrets: Option<PathBuf> = None,
        /// Lines a second that a release's output puts into this node's log; more are counted and dropped.
        module_log_lines: u32 = 50,
        /// Hosts that modules may send requests to if their manifests ask for it; `*` is any host.
        grant_hosts: Vec<String> = Vec::new(),
        /// Variables that modules may read if their manifests ask for it, with their values.
        grant_variables: BTreeMap<String, String> = BTreeMap::new(),
        /// Kinds of native code that this node runs: process, ebpf, kernel. Modules of kind wasm always run.
        native_kinds: Vec<NativeKind> = Vec::new(),
        /// As whom native processes run where the agent is root: UID:GID, or a user's name. Nobody unless it is given.
        process_user: Option<String> = None,
        /// The control group (version 2) that is this agent's own to share out, for limits of native processes; found
        /// out if none is given.
        cgroup: Option<PathBuf> = None,
        /// The device that starts the machine again when it hangs, such as /dev/watchdog: spoken to while a kernel module
        /// is being loaded and watched. Without one, a load that hangs is ended by whoever runs the machine.
        watchdog: Option<PathBuf> = None,
    }
}
