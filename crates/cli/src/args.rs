//! What may be written on the command line. What it does is in `commands`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::exit;

/// Rolls hot-swappable modules out to fleets, under live traffic, and takes them back when the numbers say so.
#[derive(Debug, Parser)]
#[command(
    name = "hotswap",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = format!("Examples:
  hotswap demo                                      a whole fleet on this machine, and its story
  hotswap module push modules/payment-processor/2.1.0
  hotswap deploy payment-processor 2.1.0 --to Production --watch
  hotswap why 3f2a                                  why a deployment stands as it does (ids may be shortened)

{}", exit::HELP),
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where a client looks for the server unless it is told.
pub(crate) const SERVER_URL: &str = "http://127.0.0.1:5000";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where the server is [env: HOTSWAP_SERVER] [default: http://127.0.0.1:5000]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// How results are written: table, or json, which is the server's own answer
    #[arg(
        short,
        long,
        global = true,
        value_name = "table|json",
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) output: OutputArg,
    /// No colours, also not on a terminal (as NO_COLOR in the environment)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

impl Global {
    /// The API's address: as given, else from the environment, else the default.
    pub(crate) fn server_url(&self) -> String {
        let from_environment = || std::env::var("HOTSWAP_SERVER").ok().filter(|url| !url.is_empty());
        self.server
            .clone()
            .or_else(from_environment)
            .unwrap_or_else(|| SERVER_URL.to_owned())
    }
}

/// What follows `-o`: everywhere a format, for `module pack` also the file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputArg {
    /// `table` or `json`.
    Format(Format),
    /// Anything else.
    File(PathBuf),
}

impl std::str::FromStr for OutputArg {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "table" => Self::Format(Format::Table),
            "json" => Self::Format(Format::Json),
            other => Self::File(other.into()),
        })
    }
}

impl Cli {
    /// Parses the process's arguments; a fault ends the process with a usage message.
    pub(crate) fn from_process() -> Self {
        let cli = Self::parse();
        if let OutputArg::File(file) = &cli.global.output
            && !matches!(cli.command, Command::Module(Module::Pack { .. }))
        {
            let message = format!(
                "invalid value '{}' for '--output': must be table or json",
                file.display()
            );
            Self::command().error(ErrorKind::InvalidValue, message).exit();
        }
        cli
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pack, push and list modules
    #[command(subcommand)]
    Module(Module),
    /// Roll a release out, through every environment up to the target
    #[command(after_help = "Examples:
  hotswap deploy payment-processor 2.1.0 --to Production --watch
  hotswap deploy payment-processor 2.0.0 --to QA --allow-downgrade --description 'reproduce a report'
  hotswap deploy order-management 3.0.0 --to staging --require-approval --metadata ticket=OPS-7")]
    Deploy(Deploy),
    /// Show a deployment and its stages; exits 1 if it failed or was rolled back
    #[command(after_help = "Examples:
  hotswap status 3f2a            any unique beginning of its id will do
  hotswap status 3f2a --watch    until it has ended
  hotswap status 3f2a -o json")]
    Status(Watched),
    /// List deployments, newest first
    #[command(after_help = "Examples:
  hotswap deployments
  hotswap deployments --status Running --env Production
  hotswap deployments --module payment-processor --limit 5 -o json")]
    Deployments(Deployments),
    /// Undo a finished deployment: its target returns to the release before it
    #[command(after_help = "Examples:
  hotswap rollback 3f2a --watch")]
    Rollback(Watched),
    /// End a running deployment and take it back where it is under way
    #[command(after_help = "Examples:
  hotswap abort 3f2a --watch")]
    Abort(Watched),
    /// Stop a deployment from moving forward; harm is still detected and taken back
    #[command(after_help = "Examples:
  hotswap pause 3f2a")]
    Pause(Watched),
    /// Let a paused deployment move forward again
    #[command(after_help = "Examples:
  hotswap resume 3f2a --watch")]
    Resume(Watched),
    /// Pass the current step's gate by your word
    #[command(after_help = "Examples:
  hotswap skip 3f2a --watch")]
    Skip(Watched),
    /// Pass all gates of the running rollout by your word; nodes must still be healthy
    #[command(after_help = "Examples:
  hotswap promote 3f2a --watch")]
    Promote(Watched),
    /// Show the environments, or one with its nodes
    #[command(after_help = "Examples:
  hotswap clusters
  hotswap clusters production")]
    Clusters(Clusters),
    /// List the nodes and what they run
    #[command(after_help = "Examples:
  hotswap nodes --env Production")]
    Nodes(Nodes),
    /// Tell why a deployment stands as it does: decisions with their evidence, and what it waits for
    #[command(after_help = "Examples:
  hotswap why 3f2a")]
    Why(One),
    /// Write a hotswap.toml with every key, its documentation and its default
    #[command(after_help = "Examples:
  hotswap init                            hotswap.toml here, which servers and agents started here read
  hotswap init /etc/hotswap/hotswap.toml")]
    Init {
        /// The file to write; one that is there is left alone
        #[arg(default_value = "hotswap.toml")]
        file: PathBuf,
    },
    /// Check the configuration, show what is in force, print its schema
    #[command(subcommand)]
    Config(Config),
    /// Run the control plane
    #[command(after_help = "Examples:
  hotswap server
  hotswap server --config /etc/hotswap/hotswap.toml --set server.heartbeat=10s
  hotswap server --data /var/lib/hotswap --http 127.0.0.1:5000 --agents 127.0.0.1:5002")]
    Server(Server),
    /// Run a node
    #[command(after_help = "Examples:
  hotswap agent --node web-1 --environment Production --label zone=a
  hotswap agent --node web-1 --environment QA --server http://127.0.0.1:5002 --data ./web-1 --ingress 127.0.0.1:8080")]
    Agent(Agent),
    /// Run a whole fleet on this machine, and watch a good release go out and a bad one come back
    #[command(after_help = "Examples:
  hotswap demo             the story, then the fleet stays up
  hotswap demo --exit      the story; 0 only if good went out, bad came back and nothing was dropped
  hotswap demo --idle      the fleet and its customers, without the story")]
    Demo(Demo),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// Pack a folder with module.toml and the artifact into one file
    #[command(after_help = "Examples:
  hotswap module pack modules/payment-processor/2.1.0
  hotswap module pack . -o /tmp/payments.hsm    the file to write; NAME-VERSION.hsm here without -o")]
    Pack {
        /// Folder with module.toml
        dir: PathBuf,
    },
    /// Push a package, or a folder that is packed on the way
    #[command(after_help = "Examples:
  hotswap module push payment-processor-2.1.0.hsm
  hotswap module push modules/payment-processor/2.1.0")]
    Push {
        /// Package file, or folder with module.toml
        path: PathBuf,
    },
    /// List modules and their versions
    #[command(after_help = "Examples:
  hotswap module list
  hotswap module list payment-processor -o json")]
    List {
        /// Only this module
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The module's name
    pub(crate) name: String,
    /// Which of its versions
    pub(crate) version: String,
    /// How far: the target environment, in any case
    #[arg(long, value_name = "ENV")]
    pub(crate) to: String,
    /// Stay until it has ended, and exit by its outcome
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// A sentence for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Ask for a person's approval before anything else
    #[arg(long)]
    pub(crate) require_approval: bool,
    /// A value for programs; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Let an older version replace a newer one
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    /// End a held rollout that is in the way
    #[arg(long)]
    pub(crate) supersede: bool,
    /// Who asks, for people [default: the user's name at this machine]
    #[arg(long, env = "HOTSWAP_EMAIL", value_name = "ADDRESS", hide_env_values = true)]
    pub(crate) email: Option<String>,
}

/// A command about one deployment that may be watched.
#[derive(Debug, Args)]
pub(crate) struct Watched {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// Stay until it has ended, and exit by its outcome
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// A command about one deployment.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Deployments {
    /// Only those of this status, e.g. Running, Succeeded, Failed
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only those of this module
    #[arg(long)]
    pub(crate) module: Option<String>,
    /// Only those to this environment
    #[arg(long, value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Clusters {
    /// One environment, in any case
    pub(crate) env: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Only those of this environment
    #[arg(long, value_name = "ENV")]
    pub(crate) env: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say everything that is wrong with a configuration; exits 2 if anything is
    #[command(after_help = "Examples:
  hotswap config check
  hotswap config check /etc/hotswap/hotswap.toml")]
    Check {
        /// The file [default: the one that a server or an agent started here would read]
        file: Option<PathBuf>,
    },
    /// Show the values in force, and where each came from: default, file and line, variable or flag
    #[command(after_help = "Examples:
  hotswap config show
  HOTSWAP_SERVER_HTTP=127.0.0.1:6000 hotswap config show --changed")]
    Show {
        #[command(flatten)]
        layers: Layers,
        /// Only what somebody gave a value
        #[arg(long)]
        changed: bool,
    },
    /// Print the JSON schema of hotswap.toml, for editors
    #[command(after_help = "Examples:
  hotswap config schema > hotswap.schema.json")]
    Schema,
}

/// Where a configuration comes from besides the defaults and the environment.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Layers {
    /// The configuration file [env: HOTSWAP_CONFIG] [default: ./hotswap.toml or /etc/hotswap/hotswap.toml, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Give any key a value, e.g. server.snapshot-every=500; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
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
    /// Where agents connect to [default: 127.0.0.1:5002]
    #[arg(long, value_name = "ADDR")]
    pub(crate) agents: Option<std::net::SocketAddr>,
    /// Environments as a JSON file, instead of those of the configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) environments: Option<PathBuf>,
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
    /// Folder of the node's ledger and packages [default: hotswap-agent-NODE]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the node takes requests [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) ingress: Option<std::net::SocketAddr>,
    /// A label such as zone=a; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave when the story ends
    #[arg(long, conflicts_with = "idle")]
    pub(crate) exit: bool,
    /// Leave the story out: the fleet waits for you
    #[arg(long)]
    pub(crate) idle: bool,
    /// The API's port on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 5000)]
    pub(crate) port: u16,
    /// Keep the fleet's data here [default: a temporary folder that goes with the demo]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
