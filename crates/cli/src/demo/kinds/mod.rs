//! One hot swap of each kind of module, as far as this machine allows: WebAssembly, a native server, an eBPF program in a
//! network of the demo's own, and a kernel module.
//!
//! As in the demo's story nothing is pretended: releases are signed, pushed and deployed through the pipeline to real
//! agents, while callers call and packets are sent. What can't be shown is left out with what it lacks.

mod drive;
mod fleet;
mod machine;
mod modules;
mod network;
mod report;
mod show;

use std::time::Instant;

use hotswap_server::DEMO_ACCOUNTS;

use crate::args::Demo;
use crate::client::{Authorities, Client, Proof};
use crate::exit::Exit;
use crate::output::Output;
use fleet::Fleet;
use machine::Machine;
use report::Report;
use show::Stage;

/// Shows every kind that can be shown, and leaves.
///
/// # Errors
/// It could not start, or something failed that should not.
pub(super) async fn run(args: &Demo, output: &Output) -> anyhow::Result<Exit> {
    crate::commands::serving::start_logs_if_asked()?;
    let no_network = network::enter().err();
    let mut interrupted = std::pin::pin!(crate::commands::serving::asked_to_stop()?);
    let machine = Machine::look(
        no_network.map(|why| why.to_string()),
        args.allow_kernel_modules.as_deref(),
    );
    let mut fleet = Fleet::start(args.port, &machine).await?;
    let result = tokio::select! {
        result = play(&mut fleet, &machine, output) => result,
        () = &mut interrupted => Ok(Exit::Interrupted),
    };
    // What was loaded into the kernel outlives agents: it is taken out before they go.
    tokio::select! {
        ended = fleet.end() => ended?,
        () = crate::commands::serving::asked_to_stop()? => {}
    }
    result
}

async fn play(fleet: &mut Fleet, machine: &Machine, output: &Output) -> anyhow::Result<Exit> {
    let client = Client::new(&fleet.url(), &Authorities::default())?;
    let [admin, ..] = DEMO_ACCOUNTS;
    let logged_in = client.login(admin.username, &admin.password.into()).await?;
    let client = client.with(Proof::of(&logged_in));
    fleet.start_agents(&client).await?;
    let mut stage = Stage {
        client,
        output,
        began: Instant::now(),
    };
    stage.nodes_are_up(fleet::NODES).await?;
    let mut report = Report::default();
    for kind in machine.kinds() {
        match &kind.lacks {
            Some(lacks) => {
                stage.tell(format!("{} is left out: {lacks}", kind.title))?;
                report.left_out(kind.title, lacks);
            }
            None => report.shown.push(show::kind(&mut stage, fleet, kind).await?),
        }
    }
    report.show(output)?;
    Ok(if report.is_well() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
