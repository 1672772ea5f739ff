//! What may be written on the command line. What it does is in `commands`.

mod fleet;
mod release;
mod values;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::exit;

pub(crate) use fleet::{NodeCommand, Nodes};
pub(crate) use release::{Events, OneVersion, Plan, Undeploy, VersionWithReason};
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
    /// List the nodes and what they run; show, label, drain, move or remove one
    #[command(after_help = "Examples:
  hotswap nodes --env Production
  hotswap nodes drain web-1 --reason 'a new disk' --wait")]
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
  hotswap login ada --server http://10.0.0.7:5000
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
  hotswap webhooks -o json")]
    Webhooks,
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
  hotswap server --admin-password-file /run/secrets/admin    the first start makes the user admin")]
    Server(Server),
    /// Run a node
    #[command(after_help = "Examples:
  hotswap agent --node web-1 --environment Production --label zone=a --trust hotswap-trust/trust.toml
  hotswap agent --node web-1 --environment QA --server http://127.0.0.1:5002 --data ./web-1 --ingress 127.0.0.1:8080

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

/// A language that modules are begun in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    /// By rustup's target, or by Debian's rustc-web.
    Rust,
    /// By componentize-js, from npm.
    Js,
    /// By componentize-py, from PyPI.
    Python,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// Begin a module: a folder that builds, tests and packs with the commands that are printed
    #[command(after_help = "Examples:
  hotswap module init --lang rust quotes
  hotswap module init --lang js greetings")]
    Init {
        /// The language
        #[arg(long)]
        lang: Lang,
        /// The module's name; also the folder's
        name: String,
    },
    /// Make a component of a core WebAssembly module that has wit-bindgen's bindings
    #[command(after_help = "Examples:
  hotswap module component target/wasm32-unknown-unknown/release/quotes.wasm quotes.wasm")]
    Component {
        /// The core module
        from: PathBuf,
        /// The component to write
        to: PathBuf,
    },
    /// Pack a folder with module.toml and the artifact into one file
    #[command(after_help = "Examples:
  hotswap module pack modules/payment-processor/2.1.0
  hotswap module pack . -o /tmp/payments.hsm    the file to write; NAME-VERSION.hsm here without -o")]
    Pack {
        /// Folder with module.toml
        dir: PathBuf,
    },
    /// Push a package with its signature, or a folder that is packed and signed on the way
    #[command(after_help = "Examples:
  hotswap module push payment-processor-2.1.0.hsm     with payment-processor-2.1.0.hsm.p7s, if it lies beside it
  hotswap module push modules/payment-processor/2.1.0 --signer hotswap-trust")]
    Push(Push),
    /// Sign a package: writes NAME.hsm.p7s beside it
    #[command(after_help = "Examples:
  hotswap module sign payment-processor-2.1.0.hsm --signer hotswap-trust
  hotswap module sign payment-processor-2.1.0.hsm --key release.key --cert release.pem --chain issuing-ca.pem

The same by openssl:
  openssl cms -sign -binary -md sha256 -outform DER -in NAME.hsm -out NAME.hsm.p7s \\
    -signer release.pem -inkey release.key -certfile issuing-ca.pem")]
    Sign {
        /// Package file
        package: PathBuf,
        #[command(flatten)]
        identity: Identity,
    },
    /// Check a package's signature here, without a server; exits 1 if it is refused
    #[command(after_help = "Examples:
  hotswap module verify payment-processor-2.1.0.hsm --trust hotswap-trust/trust.toml
  hotswap module verify payment-processor-2.1.0.hsm --roots release-root.pem")]
    Verify(Verify),
    /// Let nothing take a version ever again; where it runs it stays until something else is rolled out
    #[command(after_help = "Examples:
  hotswap module revoke payment-processor 2.0.3 --reason 'its signing key was stolen'")]
    Revoke {
        /// The module's name
        name: String,
        /// Which of its versions
        version: String,
        /// Why, for people
        #[arg(long)]
        reason: String,
    },
    /// Set the oldest version that may be deployed; rollbacks may still go below it
    #[command(after_help = "Examples:
  hotswap module minimum payment-processor 2.1.0
  hotswap module minimum payment-processor none")]
    Minimum {
        /// The module's name
        name: String,
        /// The oldest version, or none
        version: String,
    },
    /// List modules and their versions
    #[command(after_help = "Examples:
  hotswap module list
  hotswap module list payment-processor -o json")]
    List {
        /// Only this module
        name: Option<String>,
    },
    /// Show a module: its versions and where which is stable
    #[command(after_help = "Examples:
  hotswap module show payment-processor")]
    Show {
        /// The module's name
        name: String,
    },
    /// List a module's versions, newest first
    #[command(after_help = "Examples:
  hotswap module versions payment-processor --limit 5")]
    Versions {
        /// The module's name
        name: String,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Download a version's package, and check its digest
    #[command(after_help = "Examples:
  hotswap module download payment-processor 2.1.0
  hotswap module download payment-processor 2.1.0 -o /tmp/payments.hsm    the file to write")]
    Download(OneVersion),
    /// Put a version on hold: no promotion takes it
    #[command(after_help = "Examples:
  hotswap module hold payment-processor 2.1.0 --reason 'under investigation'")]
    Hold(VersionWithReason),
    /// Lift a version's hold, whoever put it there
    #[command(after_help = "Examples:
  hotswap module unhold payment-processor 2.1.0")]
    Unhold(OneVersion),
    /// Withdraw a version: it can't be deployed, and what runs it keeps it
    #[command(after_help = "Examples:
  hotswap module yank payment-processor 2.1.0 --reason 'leaks memory'")]
    Yank(VersionWithReason),
    /// Offer a withdrawn version again
    #[command(after_help = "Examples:
  hotswap module unyank payment-processor 2.1.0")]
    Unyank(OneVersion),
}

/// A person's word on an approval.
#[derive(Debug, Args)]
pub(crate) struct Decision {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// Why, for people
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who decides, for people [default: your account's address]
    #[arg(long, env = "HOTSWAP_EMAIL", value_name = "ADDRESS", hide_env_values = true)]
    pub(crate) email: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The username [default: asked for]
    pub(crate) username: Option<String>,
    /// The password's file; - is stdin [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The file of the password that replaces a one-time one [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// List them
    #[command(after_help = "Examples:
  hotswap context list")]
    List,
    /// Choose the one that commands use
    #[command(after_help = "Examples:
  hotswap context use eu")]
    Use {
        /// Its name
        name: String,
    },
    /// Make one, or give it another server
    #[command(after_help = "Examples:
  hotswap context set eu --server http://10.0.0.7:5000")]
    Set {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List them
    #[command(after_help = "Examples:
  hotswap user list")]
    List,
    /// Make one; its one-time password is told once
    #[command(after_help = "Examples:
  hotswap user add ada --email ada@example.com --role Deployer")]
    Add {
        /// The name that it logs in by; never given to another later
        username: String,
        /// An e-mail address
        #[arg(long)]
        email: String,
        /// The name that people call it
        #[arg(long)]
        name: Option<String>,
        /// Viewer, Deployer or Admin
        #[arg(long)]
        role: String,
    },
    /// Change one: describe it anew, give another role, disable it, lift a lock
    #[command(after_help = "Examples:
  hotswap user set ada --role Admin
  hotswap user set ada --disabled true
  hotswap user set ada --unlock")]
    Set {
        /// Which
        username: String,
        /// Another e-mail address
        #[arg(long)]
        email: Option<String>,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Viewer, Deployer or Admin
        #[arg(long)]
        role: Option<String>,
        /// Whether it may not log in any more
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        /// Lift the lock after failed logins
        #[arg(long)]
        unlock: bool,
    },
    /// Give one a one-time password, told once
    #[command(after_help = "Examples:
  hotswap user reset-password ada")]
    ResetPassword {
        /// Which
        username: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List them: your own, for an Admin everybody's
    #[command(after_help = "Examples:
  hotswap token list")]
    List,
    /// Make one that speaks for you; told once
    #[command(after_help = "Examples:
  hotswap token create ci --role Deployer --module 'payment-*' --env QA --days 30")]
    Create {
        /// What it is for
        name: String,
        /// Viewer, Deployer or Admin; no more than your own
        #[arg(long)]
        role: String,
        /// Only commands about such modules; may be repeated
        #[arg(long = "module", value_name = "PATTERN")]
        modules: Vec<String>,
        /// Only commands about this environment; may be repeated
        #[arg(long = "env", value_name = "ENV")]
        environments: Vec<String>,
        /// How long it lasts
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    /// Revoke one; it is refused at once
    #[command(after_help = "Examples:
  hotswap token revoke 0b5c6a4e-6f0e-4a3b-9a5e-0d0a2c1b7f11")]
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List them
    #[command(after_help = "Examples:
  hotswap key list")]
    List,
    /// Sign by a new one; nobody has to log in again
    #[command(after_help = "Examples:
  hotswap key rotate")]
    Rotate,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List what was done, newest first
    #[command(after_help = "Examples:
  hotswap audit list
  hotswap audit list --actor ada --kind command
  hotswap audit list --kind denial --from 2026-11-24T00:00:00Z --limit 500 -o json")]
    List(AuditList),
    /// Verify the whole record; exits 1 if anything in it was changed
    #[command(after_help = "Examples:
  hotswap audit verify
  hotswap audit verify --data /var/lib/hotswap    without the server, or on a copy of its database")]
    Verify {
        /// The server's folder, or a database file
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// Only by this user
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only of this kind: server, event, command, login, denial, account, token or key
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only of this action, e.g. deploy
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only with this outcome: done, or a refusal's code
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Only about this deployment, by its whole id
    #[arg(long, value_name = "ID")]
    pub(crate) deployment: Option<String>,
    /// Only from this time on
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

/// Whose signature it is to be.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// Folder with signer.key, signer.pem and maybe chain.pem, as `hotswap trust init` makes it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["key", "cert", "chain"])]
    pub(crate) signer: Option<PathBuf>,
    /// Private key in PEM: RSA with at least 2048 bits, or ECDSA P-256
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The key's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Certificates between that one and the root
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) chain: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Package file, or folder with module.toml
    pub(crate) path: PathBuf,
    /// Its signature [default: the package's file name with .p7s behind it, if that is there]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["signer", "key"])]
    pub(crate) signature: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Package file
    pub(crate) package: PathBuf,
    /// Its signature [default: the package's file name with .p7s behind it]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
    /// Trusted root certificates: any signer under them, for any module
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "trust",
        conflicts_with = "trust"
    )]
    pub(crate) roots: Option<PathBuf>,
    /// Revocation lists
    #[arg(long, value_name = "FILE", requires = "roots")]
    pub(crate) crls: Option<PathBuf>,
    /// Trust file, as servers and nodes have it
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
}

/// Whose modules are taken.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Trust file: which roots, revocation lists and signers (`hotswap trust init` makes one)
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Take modules without a signature too: for trying out only
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Make a root and a signer of your own, and the trust file that trusts them
    #[command(after_help = "Examples:
  hotswap trust init                  in ./hotswap-trust
  hotswap trust init /etc/hotswap/trust

It is for development: the root's key is thrown away at once, so that there is one signer and no revocation. For a
company's modules use its own certificate authority, and name its root in the trust file.")]
    Init {
        /// Folder to make
        #[arg(default_value = "hotswap-trust")]
        dir: PathBuf,
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
    /// Draw the nodes with this seed, as a plan stated it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
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
pub(crate) struct Replay {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// A setting of the judge that is different; may be repeated
    #[arg(long, value_name = "judge.NAME=VALUE")]
    pub(crate) set: Vec<String>,
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
    /// Show the values that an environment gives a module
    #[command(after_help = "Examples:
  hotswap config get payment-processor --env Production")]
    Get(GetValues),
    /// Give a module values in an environment; a deployment makes them count
    #[command(after_help = "Examples:
  hotswap config set payment-processor CURRENCY=EUR --env Production
  hotswap config set payment-processor DB_PASSWORD=file:db-password --env Production    a secret of the nodes
  hotswap config set payment-processor CURRENCY- --env Production                       takes it back
  hotswap deploy payment-processor 2.1.0 --to Production --watch                        rolls them out")]
    Set(SetValues),
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
    /// Where agents connect to [default: 127.0.0.1:5002]
    #[arg(long, value_name = "ADDR")]
    pub(crate) agents: Option<std::net::SocketAddr>,
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
    /// Folder of the node's ledger and packages [default: hotswap-agent-NODE]
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

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
