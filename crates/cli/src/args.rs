//! What may be written on the command line. What it does is in `commands`.

mod config;
mod deployments;
mod fleet;
mod modules;
mod people;
mod processes;
mod release;
mod trust;
mod values;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::client::Authorities;
use crate::credentials::Credentials;
use crate::exit;
use crate::problem::Problem;

pub(crate) use config::{Config, Layers};
pub(crate) use deployments::{Clusters, Decision, Deploy, Deployments, One, Replay, Watched, Webhooks};
pub(crate) use fleet::{JoinToken, NodeCommand, Nodes};
pub(crate) use modules::{BeginKind, Identity, Lang, Module, Push, Verify};
pub(crate) use people::{Audit, AuditList, Context, Key, Login, Token, User};
pub(crate) use processes::{Agent, Backup, Demo, Doctor, Restore, Server};
pub(crate) use release::{Events, OneVersion, Plan, Undeploy, VersionWithReason};
pub(crate) use trust::{Trust, TrustCommand};
pub(crate) use values::{GetValues, SetValues};

/// Rolls hot-swappable modules out to fleets, under live traffic, and takes them back when the numbers say so.
#[derive(Debug, Parser)]
#[command(
    name = "hotswap",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = format!("Examples:
  hotswap demo                                      a whole fleet on this machine, and its story
  hotswap login                                     at the server that the following commands go to
  hotswap module push modules/payment-processor/2.1.0 --signer hotswap-trust
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
    /// Where the server is [env: HOTSWAP_SERVER] [default: the current context's, else http://127.0.0.1:5000]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Whom to trust to be an https:// server: a file with its authority's certificate in PEM, or `system`
    /// [env: HOTSWAP_CA] [default: what `login` or `context set` remember for it, else the system's authorities]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
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
    /// The API's address: as given, else from the environment, else the current context's, else the default.
    pub(crate) fn server_url(&self, context: Option<&str>) -> String {
        let from_environment = || std::env::var("HOTSWAP_SERVER").ok().filter(|url| !url.is_empty());
        self.server
            .clone()
            .or_else(from_environment)
            .unwrap_or_else(|| context.unwrap_or(SERVER_URL).to_owned())
    }
}

impl Global {
    /// Whom to trust: as given, else from the environment, else what is remembered by the server's address.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(crate) fn authorities(&self, kept: &Credentials) -> Result<Authorities, Problem> {
        let from_environment = || std::env::var_os("HOTSWAP_CA").filter(|file| !file.is_empty());
        let said = self.ca.clone().or_else(|| from_environment().map(PathBuf::from));
        Authorities::new(said.as_deref(), kept.authorities.clone())
    }
}

/// What follows `-o`: everywhere a format, for `module pack` and `module download` also the file to write.
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
            && !matches!(
                cli.command,
                Command::Module(Module::Pack { .. } | Module::Download(_))
            )
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
    /// Pack, push, list, hold and withdraw modules
    #[command(subcommand)]
    Module(Module),
    /// Say whose modules are trusted
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Roll a release out, through every environment up to the target
    #[command(after_help = "Examples:
  hotswap deploy payment-processor 2.1.0 --to Production --watch
  hotswap deploy payment-processor 2.0.0 --to QA --allow-downgrade --description 'reproduce a report'
  hotswap deploy order-management 3.0.0 --to staging --require-approval --metadata ticket=OPS-7")]
    Deploy(Deploy),
    /// Show what a deployment would do, without doing it
    #[command(after_help = "Examples:
  hotswap plan payment-processor 2.1.0 --to Production
  hotswap plan payment-processor 2.1.0 --to Production --seed 7 && \\
  hotswap deploy payment-processor 2.1.0 --to Production --seed 7    the same nodes are drawn")]
    Plan(Plan),
    /// Unload a module from an environment
    #[command(after_help = "Examples:
  hotswap undeploy payment-processor --from Staging --watch")]
    Undeploy(Undeploy),
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
    /// List the nodes and what they run; let one join, show, label, drain, move, revoke or remove one
    #[command(after_help = "Examples:
  hotswap nodes --env Production
  hotswap nodes drain web-1 --reason 'a new disk' --wait")]
    #[command(alias = "node")]
    Nodes(Nodes),
    /// Write what happened, or with -f what happens, a line for each event
    #[command(after_help = "Examples:
  hotswap events -f
  hotswap events -f --type DeploymentCompleted,DeploymentFailed -o json    a JSON object on each line
  hotswap events --deployment 3f2a                                         all that happened in it")]
    Events(Events),
    /// Tell why a deployment stands as it does: decisions with their evidence, and what it waits for
    #[command(after_help = "Examples:
  hotswap why 3f2a")]
    Why(One),
    /// List the approvals that wait
    #[command(after_help = "Examples:
  hotswap approvals
  hotswap approvals -o json")]
    Approvals,
    /// Let a deployment that waits for an approval begin
    #[command(after_help = "Examples:
  hotswap approve 3f2a --reason 'ticket OPS-7'")]
    Approve(Decision),
    /// End a deployment that waits for an approval
    #[command(after_help = "Examples:
  hotswap reject 3f2a --reason 'not before the weekend'")]
    Reject(Decision),
    /// Log in at a server, and remember it for this user's commands
    #[command(after_help = "Examples:
  hotswap login                             asks for the username and the password
  hotswap login ada --server https://10.0.0.7:5000 --ca authority.pem
  hotswap login ci --password-file /run/secrets/password")]
    Login(Login),
    /// End the login at a server, and forget it
    #[command(after_help = "Examples:
  hotswap logout")]
    Logout,
    /// Tell who the server takes you for
    #[command(after_help = "Examples:
  hotswap whoami")]
    Whoami,
    /// List, choose or make contexts: names for servers
    #[command(subcommand)]
    Context(Context),
    /// List, make and change users
    #[command(subcommand)]
    User(User),
    /// List, make and revoke API tokens for programs
    #[command(subcommand)]
    Token(Token),
    /// List and rotate the keys that sign logins
    #[command(subcommand)]
    Key(Key),
    /// List what was done, and verify that the record was not changed
    #[command(subcommand)]
    Audit(Audit),
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
    /// Look at this machine, the configuration, the data and the server, and say what to do; exits 1 if anything fails
    #[command(after_help = "Examples:
  hotswap doctor
  hotswap doctor --config /etc/hotswap/hotswap.toml -o json")]
    Doctor(Doctor),
    /// Back a server's data up while it runs, into one file
    #[command(after_help = "Examples:
  hotswap backup --to /var/backups                    a file named after the time
  hotswap backup --to hotswap.tar --data /var/lib/hotswap")]
    Backup(Backup),
    /// Restore a backup into an empty data directory
    #[command(after_help = "Examples:
  hotswap restore hotswap.tar --data /var/lib/hotswap
  hotswap adopt                                       once the server runs, if its nodes know newer specs")]
    Restore(Restore),
    /// Take over a fleet whose nodes know newer specs than the server, since a backup was restored
    #[command(after_help = "Examples:
  hotswap adopt            nodes take the server's specs from now on, whatever they were told since the backup")]
    Adopt,
    /// Show who is told what happens to deployments, and which messages were given up on
    #[command(after_help = "Examples:
  hotswap webhooks
  hotswap webhooks resend --all     once the receiver is back
  hotswap webhooks -o json")]
    Webhooks {
        #[command(subcommand)]
        command: Option<Webhooks>,
    },
    /// Chart what the judge saw: candidate against control, the evidence, and the verdict on each step
    #[command(after_help = "Examples:
  hotswap analysis 3f2a
  hotswap analysis 3f2a -o json")]
    Analysis(One),
    /// Judge a deployment's recorded evidence again under another policy: when would it have stopped?
    #[command(after_help = "Examples:
  hotswap replay 3f2a --set judge.alpha=0.05
  hotswap replay 3f2a --set judge.error_margin_points=0.02 --set 'judge.dry_run=cpu|memory'")]
    Replay(Replay),
    /// Run the control plane
    #[command(after_help = "Examples:
  hotswap server --trust hotswap-trust/trust.toml
  hotswap server --config /etc/hotswap/hotswap.toml --set server.heartbeat=10s
  hotswap server --data /var/lib/hotswap --http 127.0.0.1:5000 --agents 127.0.0.1:5002
  hotswap server --http 0.0.0.0:5000 --tls-certificate api.pem --tls-key api.key
  hotswap server --admin-password-file /run/secrets/admin    the first start makes the user admin")]
    Server(Server),
    /// Run a node
    #[command(after_help = "Examples:
  hotswap agent --node web-1 --environment Production --server https://10.0.0.7:5002 --join-token-file join.token
  hotswap agent --node web-1 --environment QA --label zone=a --trust hotswap-trust/trust.toml --data ./web-1

The join token is needed once: with it the node gets a certificate of its own, which it renews by itself.

Upgrade in place: replace the binary, then `kill -USR2 PID` (or start the same command with --takeover). The new process
gets the listening socket, and the old one ends when the new one serves all that was served; else it stays.")]
    Agent(Agent),
    /// Run a whole fleet on this machine, and watch a good release go out and a bad one come back
    #[command(after_help = "Examples:
  hotswap demo             the story, then the fleet stays up
  hotswap demo --exit      the story; 0 only if good went out, bad came back and nothing was dropped
  hotswap demo --idle      the fleet and its customers, without the story")]
    Demo(Demo),
    /// Write a shell's completions to stdout
    #[command(after_help = "Examples:
  hotswap completions bash > /etc/bash_completion.d/hotswap
  hotswap completions zsh > ~/.zfunc/_hotswap
  hotswap completions fish > ~/.config/fish/completions/hotswap.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a folder
    #[command(after_help = "Examples:
  hotswap man /usr/local/share/man/man1 && man hotswap-deploy")]
    Man {
        /// The folder; made if it isn't there
        dir: PathBuf,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
