//! What each command does.

mod accounts;
mod adopt;
mod agent;
mod analysis;
mod approvals;
mod audit;
mod author;
mod backup;
mod clusters;
mod collect;
mod config;
mod context;
mod control;
mod deploy;
mod deployments;
mod doctor;
mod events;
mod https;
mod join_tokens;
mod login;
mod module;
mod node;
mod nodes;
mod plan;
mod releases;
mod resolve;
mod server;
mod service;
pub(crate) mod serving;
pub(crate) mod settings;
mod shell;
pub(crate) mod signing;
mod status;
mod suggest;
mod undeploy;
mod values;
mod watch;
mod webhooks;
mod why;

use std::future::Future;

use anyhow::Context as _;
use tokio::runtime::Builder;

use crate::args::{Audit, Cli, Command, Config, Global, Module, OutputArg, TrustCommand, Webhooks};
use crate::client::Client;
use crate::exit::Exit;
use crate::output::Output;

/// Fewer open files than this may not be enough under load.
const OPEN_FILES_WANTED: u64 = 4_096;

/// What a client's command works with.
pub(crate) struct Remote<'a> {
    pub(crate) client: Client,
    pub(crate) output: &'a Output,
}

/// Carries a command out.
///
/// # Errors
/// Whatever kept it from being done, for people.
pub(crate) fn run(cli: Cli, output: &Output) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Module(Module::Init { kind, lang, name }) => author::init(kind, lang, &name, output),
        Command::Module(Module::Component { from, to }) => author::component(&from, &to, output),
        Command::Module(Module::Pack { dir }) => module::pack(&dir, global, output),
        Command::Module(Module::Push(args)) => {
            remote(global, output, async |remote| module::push(&remote, &args).await)
        }
        Command::Module(Module::Sign { package, identity }) => signing::sign(&package, &identity, output),
        Command::Module(Module::Verify(args)) => signing::verify(&args, output),
        Command::Module(Module::Revoke {
            name,
            version,
            reason,
        }) => remote(global, output, async |remote| {
            module::revoke(&remote, &name, &version, &reason).await
        }),
        Command::Module(Module::Minimum { name, version }) => remote(global, output, async |remote| {
            module::minimum(&remote, &name, &version).await
        }),
        Command::Trust(TrustCommand::Init { dir }) => signing::init(&dir, output),
        Command::Module(Module::List { name }) => remote(global, output, async |remote| {
            module::list(&remote, name.as_deref()).await
        }),
        Command::Module(Module::Collect { dry_run }) => remote(global, output, async |remote| {
            collect::run(&remote, dry_run).await
        }),
        Command::Module(Module::Show { name }) => remote(global, output, async |remote| {
            releases::show(&remote, &name).await
        }),
        Command::Module(Module::Versions { name, limit }) => remote(global, output, async |remote| {
            releases::versions(&remote, &name, limit).await
        }),
        Command::Module(Module::Download(args)) => {
            let file = match &global.output {
                OutputArg::File(file) => Some(file.clone()),
                OutputArg::Format(_) => None,
            };
            remote(global, output, async |remote| {
                releases::download(&remote, &args, file).await
            })
        }
        Command::Module(Module::Hold(args)) => remote(global, output, async |remote| {
            releases::HOLD.run(&remote, &args.version, &args.reason).await
        }),
        Command::Module(Module::Unhold(version)) => remote(global, output, async |remote| {
            releases::UNHOLD.run(&remote, &version, "").await
        }),
        Command::Module(Module::Yank(args)) => remote(global, output, async |remote| {
            releases::YANK.run(&remote, &args.version, &args.reason).await
        }),
        Command::Module(Module::Unyank(version)) => remote(global, output, async |remote| {
            releases::UNYANK.run(&remote, &version, "").await
        }),
        Command::Events(args) => remote(global, output, async |remote| events::run(&remote, &args).await),
        Command::Plan(args) => remote(global, output, async |remote| plan::run(&remote, &args).await),
        Command::Undeploy(args) => remote(global, output, async |remote| undeploy::run(&remote, &args).await),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { dir } => shell::manual(&dir, output),
        Command::Deploy(args) => remote(global, output, async |remote| deploy::run(&remote, &args).await),
        Command::Status(args) => remote(global, output, async |remote| status::run(&remote, &args).await),
        Command::Deployments(args) => remote(global, output, async |remote| {
            deployments::run(&remote, &args).await
        }),
        Command::Rollback(args) => remote(global, output, async |remote| {
            control::rollback(&remote, &args).await
        }),
        Command::Abort(args) => remote(global, output, async |remote| {
            control::ABORT.run(&remote, &args).await
        }),
        Command::Pause(args) => remote(global, output, async |remote| {
            control::PAUSE.run(&remote, &args).await
        }),
        Command::Resume(args) => remote(global, output, async |remote| {
            control::RESUME.run(&remote, &args).await
        }),
        Command::Skip(args) => remote(global, output, async |remote| {
            control::SKIP.run(&remote, &args).await
        }),
        Command::Promote(args) => remote(global, output, async |remote| {
            control::PROMOTE.run(&remote, &args).await
        }),
        Command::Clusters(args) => remote(global, output, async |remote| clusters::run(&remote, &args).await),
        Command::Nodes(args) => remote(global, output, async |remote| match &args.command {
            Some(command) => node::run(&remote, command).await,
            None => nodes::run(&remote, &args).await,
        }),
        Command::Why(args) => remote(global, output, async |remote| why::run(&remote, &args).await),
        Command::Doctor(args) => doctor::run(&args, global, output),
        Command::Backup(args) => backup::make(&args, output),
        Command::Restore(args) => backup::restore(&args, output),
        Command::Adopt => remote(global, output, async |remote| adopt::run(&remote).await),
        Command::Init { file } => config::init(&file, output),
        Command::Config(Config::Get(args)) => {
            remote(global, output, async |remote| values::get(&remote, &args).await)
        }
        Command::Config(Config::Set(args)) => {
            remote(global, output, async |remote| values::set(&remote, &args).await)
        }
        Command::Config(what) => config::run(&what, output),
        Command::Approvals => remote(global, output, async |remote| approvals::list(&remote).await),
        Command::Approve(args) => remote(global, output, async |remote| {
            approvals::decide(&remote, &args, "approve").await
        }),
        Command::Reject(args) => remote(global, output, async |remote| {
            approvals::decide(&remote, &args, "reject").await
        }),
        Command::Login(args) => plain(login::login(global, &args, output)),
        Command::Logout => remote(global, output, async |remote| {
            login::logout(&remote, global).await
        }),
        Command::Whoami => remote(global, output, async |remote| login::whoami(&remote).await),
        Command::Context(args) => context::run(&args, global, output),
        Command::User(args) => remote(global, output, async |remote| {
            accounts::user(&remote, &args).await
        }),
        Command::Token(args) => remote(global, output, async |remote| {
            accounts::token(&remote, &args).await
        }),
        Command::Key(args) => remote(global, output, async |remote| accounts::key(&remote, &args).await),
        Command::Audit(Audit::Verify { data: Some(data) }) => audit::verify_folder(&data, output),
        Command::Audit(args) => remote(global, output, async |remote| audit::run(&remote, &args).await),
        Command::Webhooks { command } => remote(global, output, async |remote| match command {
            None => webhooks::list(&remote).await,
            Some(Webhooks::Resend { ids, all }) => webhooks::resend(&remote, ids, all).await,
        }),
        Command::Analysis(args) => remote(global, output, async |remote| analysis::run(&remote, &args).await),
        Command::Replay(args) => remote(global, output, async |remote| {
            analysis::replay(&remote, &args).await
        }),
        Command::Server(args) => serving(server::run(&args)),
        Command::Agent(args) => serving(agent::run(&args, global, output)),
        Command::Demo(args) => serving(crate::demo::run(&args, output)),
    }
}

/// One thread is enough for a client.
fn remote<'a, F>(
    global: &Global,
    output: &'a Output,
    command: impl FnOnce(Remote<'a>) -> F,
) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<Exit>>,
{
    let client = login::client(global)?;
    plain(command(Remote { client, output }))
}

fn plain(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    runtime.block_on(command)
}

/// All cores for whoever serves.
fn serving(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    service::take_given();
    // Each connection is a file; the customary soft limit of 1024 is for programs that use select.
    let files = rlimit::increase_nofile_limit(u64::MAX).context("failed to raise the limit of open files")?;
    if files < OPEN_FILES_WANTED {
        eprintln!(
            "warning: at most {files} files may be open, {OPEN_FILES_WANTED} would be better: ulimit -n"
        );
    }
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    let exit = runtime.block_on(command);
    // Whatever still runs has been told to stop and had its time.
    runtime.shutdown_background();
    exit
}
