//! What an agent is told by its operator.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::report::LABELS_MAX;
use hotswap_telemetry::otlp::OtlpConfig;
use hotswap_trust::Gate;

use crate::credential::JoinSource;

/// Longest label key or value, in characters.
const LABEL_LEN_MAX: usize = 128;
/// Shortest and longest time between reports.
pub(crate) const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(5));

/// How an agent runs. [`AgentConfig::new`] gives the defaults for everything that has one.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Who the node is; unique in its fleet.
    pub node: NodeId,
    /// The environment that it wants to join; the server's record of the node wins.
    pub environment: EnvName,
    /// Labels, such as a zone: cohorts are spread over them.
    pub labels: BTreeMap<String, String>,
    /// The server's address for agents, as `https://HOST:PORT`; as `http://` without TLS, on this machine only.
    pub server: String,
    /// What to get a certificate by where the data folder holds none that is taken.
    pub join: Option<JoinSource>,
    /// The authority that the server's certificate must be by, in PEM, instead of the one that the join token names.
    pub ca: Option<PathBuf>,
    /// Where the ledger and the packages are kept. One agent at a time uses a folder.
    pub data_dir: PathBuf,
    /// Where the ingress listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where metrics are served for scraping, apart from the ingress; nowhere unless it is set. Port 0 picks a free one.
    pub metrics: Option<SocketAddr>,
    /// Where spans go; nowhere unless it is set.
    pub traces: Option<TraceConfig>,
    /// Where others reach the ingress, as `HOST:PORT`, if that is not where it listens.
    pub advertise: Option<String>,
    /// Host name, for people. The node's id if there is none.
    pub hostname: Option<String>,
    /// The folder of the secrets that modules' values name by `file:`; none is given unless it is set.
    pub secrets: Option<PathBuf>,
    /// How often it reports at least, until the server says otherwise.
    pub heartbeat: Duration,
    /// How long requests in flight may go on after the agent was asked to stop.
    pub drain_deadline: Duration,
    /// Who must have signed what this node runs: the node's own word, whatever the server says. By default nobody is
    /// trusted, so that nothing runs.
    pub gate: Gate,
}

/// What a node tells a receiver of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// The receiver.
    pub otlp: OtlpConfig,
    /// The share of users' requests that are recorded, in %, of those whose callers have not decided.
    pub sample_percent: f64,
}

/// A setting that can't be. Names the key and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The server's address.
    #[error(
        "`server` is {given:?}: {why}; it should be the server's address for agents, as https://10.0.0.1:5002"
    )]
    Server {
        /// What it is.
        given: String,
        /// What is wrong.
        why: String,
    },
    /// The time between reports.
    #[error("`heartbeat` is {given:?}; it should be between {:?} and {:?}", HEARTBEAT.0, HEARTBEAT.1)]
    Heartbeat {
        /// What it is.
        given: Duration,
    },
    /// The labels.
    #[error("`labels`: {0}")]
    Labels(String),
    /// The advertised address.
    #[error("`advertise` is {given:?}; it should be HOST:PORT, as others reach the ingress")]
    Advertise {
        /// What it is.
        given: String,
    },
    /// The share of requests.
    #[error("`sample_percent` is {given}; it should be between 0 and 100")]
    Sample {
        /// What it is.
        given: String,
    },
    /// No folder.
    #[error("`data_dir` is empty; it should be a folder that this agent alone uses, as /var/lib/hotswap")]
    DataDir,
}

impl AgentConfig {
    /// A node of an environment, with the defaults: ingress on a free port of the loopback, a heartbeat of 30 s.
    pub fn new(
        node: NodeId,
        environment: EnvName,
        server: impl Into<String>,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            node,
            environment,
            labels: BTreeMap::new(),
            server: server.into(),
            join: None,
            ca: None,
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics: None,
            traces: None,
            advertise: None,
            hostname: None,
            secrets: None,
            heartbeat: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(10),
            gate: Gate::default(),
        }
    }

    /// Checks every setting; the first fault is named.
    ///
    /// # Errors
    /// The key at fault, and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.server_uri()?;
        if !(HEARTBEAT.0..=HEARTBEAT.1).contains(&self.heartbeat) {
            return Err(ConfigError::Heartbeat {
                given: self.heartbeat,
            });
        }
        if self.labels.len() > LABELS_MAX {
            return Err(ConfigError::Labels(format!(
                "{} are given, at most {LABELS_MAX} are taken",
                self.labels.len()
            )));
        }
        let long = |text: &str| text.is_empty() || text.chars().count() > LABEL_LEN_MAX;
        if let Some((key, _)) = self.labels.iter().find(|(key, value)| long(key) || long(value)) {
            let key: String = key.chars().take(LABEL_LEN_MAX).collect();
            return Err(ConfigError::Labels(format!(
                "{key:?}: key and value should have 1 to {LABEL_LEN_MAX} characters"
            )));
        }
        if let Some(given) = &self.advertise {
            let port = given
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty())
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(ConfigError::Advertise { given: given.clone() });
            }
        }
        if let Some(traces) = &self.traces
            && !(0.0..=100.0).contains(&traces.sample_percent)
        {
            return Err(ConfigError::Sample {
                given: traces.sample_percent.to_string(),
            });
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::DataDir);
        }
        Ok(())
    }

    pub(crate) fn server_uri(&self) -> Result<http::Uri, ConfigError> {
        let wrong = |why: &str| ConfigError::Server {
            given: self.server.clone(),
            why: why.to_owned(),
        };
        let uri: http::Uri = self
            .server
            .parse()
            .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if uri.host().is_some_and(is_this_machine) => {}
            Some("http") => return Err(wrong("without TLS only a server on this machine is spoken to")),
            _ => return Err(wrong("it has no scheme")),
        }
        if uri
            .authority()
            .is_none_or(|authority| authority.host().is_empty())
        {
            return Err(wrong("it has no host"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        Ok(uri)
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AgentConfig {
        AgentConfig::new(
            "n-1".parse().unwrap(),
            "QA".parse().unwrap(),
            "http://127.0.0.1:7071",
            "/tmp/n-1",
        )
    }

    #[test]
    fn faults_name_the_key_and_what_would_be_right() {
        assert_eq!(config().validate(), Ok(()));
        let fault = |change: fn(&mut AgentConfig)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for server in [
            "",
            "127.0.0.1:7071",
            "ftp://x",
            "http://10.0.0.1:1",
            "https://",
            "https://x:1/agents",
            "http://x y",
        ] {
            let config = AgentConfig {
                server: server.to_owned(),
                ..config()
            };
            let message = config.validate().unwrap_err().to_string();
            assert!(
                message.starts_with("`server` is ") && message.contains("as https://"),
                "{message}"
            );
        }
        assert!(
            fault(|c| c.heartbeat = Duration::ZERO)
                .contains("`heartbeat` is 0ns; it should be between 100ms")
        );
        assert!(fault(|c| c.advertise = Some("host".to_owned())).contains("HOST:PORT"));
        assert!(fault(|c| c.advertise = Some(":80".to_owned())).contains("HOST:PORT"));
        assert!(fault(|c| c.data_dir = PathBuf::new()).starts_with("`data_dir`"));
        assert!(fault(|c| drop(c.labels.insert("zone".to_owned(), String::new()))).contains("\"zone\""));
    }
}
