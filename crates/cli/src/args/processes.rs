//! Words about what runs: server, agent, demo, and what looks after their data.

use std::path::PathBuf;

use clap::Args;

use super::{Layers, Trust, key_value};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) layers: Layers,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) layers: Layers,
    /// The file to write, or a directory for a file that is named after the time
    #[arg(long, value_name = "PATH")]
    pub(crate) to: PathBuf,
    /// The server's data [default: hotswap-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) layers: Layers,
    /// The backup
    pub(crate) file: PathBuf,
    /// Where to: empty, or not there yet [default: hotswap-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) layers: Layers,
    /// Folder of the server's data; made if it isn't there [default: hotswap-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the API listens [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) tls: ServerTls,
    /// Where agents connect to [default: 127.0.0.1:5002]
    #[arg(long, value_name = "ADDR")]
    pub(crate) agents: Option<std::net::SocketAddr>,
    /// Take agents without TLS, and believe them whoever they say they are: for trying out, on a loopback address only
    #[arg(long)]
    pub(crate) plain_agents: bool,
    /// How long nodes' certificates hold, 2s to 90days; agents renew theirs at two thirds of it [default: 7days]
    #[arg(long, value_name = "TIME")]
    pub(crate) node_certificate_lifetime: Option<humantime::Duration>,
    /// Environments as a JSON file, instead of those of the configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) environments: Option<PathBuf>,
    /// The first admin's password; only the first start looks at it [env: HOTSWAP_ADMIN_PASSWORD, the password itself]
    /// [default: a one-time password, told once]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// How many requests a user, or an address, may send a minute: all, deployments, clusters, approvals, login
    #[arg(long = "rate-limit", value_name = "GROUP=N", value_delimiter = ',', value_parser = rate_limit)]
    pub(crate) rate_limits: Vec<(String, u32)>,
    /// Don't count requests from this machine itself
    #[arg(long)]
    pub(crate) no_rate_limit_on_loopback: bool,
    /// An origin whose pages may read answers; may be repeated [default: none]
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    pub(crate) cors_origins: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Tell this address what happens to deployments: URL, or slack+URL for Slack; may be repeated
    #[arg(long = "webhook", value_name = "URL")]
    pub(crate) webhooks: Vec<String>,
    /// File with the secret that webhooks' messages are signed with [default: HOTSWAP_WEBHOOK_SECRET, else unsigned]
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) traces: Traces,
}

/// TLS of the API.
#[derive(Debug, Args)]
pub(crate) struct ServerTls {
    /// Speak HTTPS: auto is wherever others can reach the API, so not on loopback; off needs --insecure-http there
    /// [default: auto; --tls alone: on]
    #[arg(
        long,
        value_name = "auto|on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        value_parser = ["auto", "on", "off"]
    )]
    pub(crate) tls: Option<String>,
    /// The API's certificate in PEM, with those that lead to its authority; read anew when it changes [default: one of
    /// the fleet's own authority, renewed by itself]
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A host name or address in the certificate of the fleet's own authority, besides this machine's; may be repeated
    #[arg(long = "tls-name", value_name = "NAME")]
    pub(crate) tls_names: Vec<String>,
    /// Speak plain HTTP where others can listen, too
    #[arg(long)]
    pub(crate) insecure_http: bool,
}

/// Where spans go.
#[derive(Debug, Args)]
pub(crate) struct Traces {
    /// Send traces to an OTLP receiver: --otlp=grpc://HOST:4317, --otlp=http://HOST:4318, or --otlp, and the
    /// OTEL_EXPORTER_OTLP_… variables say the rest [env: HOTSWAP_OTLP]
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) otlp: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) layers: Layers,
    /// This node's name in the fleet
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// The environment to join
    #[arg(long, value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// File with the join token that the node gets its certificate by, once [env: HOTSWAP_JOIN_TOKEN, the token itself]
    #[arg(long, value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// Folder of the node's certificate, ledger and packages [default: hotswap-agent-NODE]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the node takes requests [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) ingress: Option<std::net::SocketAddr>,
    /// Where the node's metrics are served for scraping, e.g. 127.0.0.1:9102 [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) traces: Traces,
    /// The share of users' requests that are recorded as spans, in %; those that their callers record always are
    /// [env: HOTSWAP_SAMPLE] [default: 1]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) sample: Option<f64>,
    /// A label such as zone=a; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// A host that modules may send requests to if their manifests ask for it; may be repeated [default: none]
    #[arg(long = "grant-host", value_name = "HOST")]
    pub(crate) grant_hosts: Vec<String>,
    /// A variable that modules may read if their manifests ask for it; may be repeated [default: none]
    #[arg(long = "grant-variable", value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) grant_variables: Vec<(String, String)>,
    /// A kind of native code that this node runs: process, ebpf, kernel; may be repeated [default: none]
    #[arg(long = "native-kind", value_name = "KIND")]
    pub(crate) native_kinds: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Take the node over from the agent that has its data folder, without dropping a request
    #[arg(long)]
    pub(crate) takeover: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave when the story ends
    #[arg(long, conflicts_with = "idle")]
    pub(crate) exit: bool,
    /// Leave the story out: the fleet waits for you
    #[arg(long)]
    pub(crate) idle: bool,
    /// Show one hot swap of each kind of module that this machine can run, then leave
    #[arg(long, conflicts_with_all = ["idle", "data"])]
    pub(crate) kinds: bool,
    /// With --kinds: load the example kernel modules, built in DIR, into this machine's own kernel
    #[arg(long, value_name = "DIR", requires = "kinds")]
    pub(crate) allow_kernel_modules: Option<PathBuf>,
    /// The API's port on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 5000)]
    pub(crate) port: u16,
    /// Keep the fleet's data here [default: a temporary folder that goes with the demo]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

fn rate_limit(text: &str) -> Result<(String, u32), String> {
    let wrong = || "must be all, deployments, clusters, approvals or login, = and a number".to_owned();
    let (group, number) = text.split_once('=').ok_or_else(wrong)?;
    let known = ["all", "deployments", "clusters", "approvals", "login"].contains(&group);
    let number = number.parse().map_err(|_| wrong())?;
    if known {
        Ok((group.to_owned(), number))
    } else {
        Err(wrong())
    }
}
