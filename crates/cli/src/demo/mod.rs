//! A complete fleet on one machine, with customers, and the story of a good and a bad release.
//!
//! One process, but nothing in it is pretended: the server is a server, each of the 38 nodes is a full agent with
//! its own session, ledger and ingress, and all that is shown went over their sockets.

mod director;
mod fleet;
mod kinds;
mod modules;
mod policy;
mod story;
mod summary;
mod traffic;
mod view;

use std::time::Instant;

use hotswap_server::DEMO_ACCOUNTS;

use crate::args::Demo;
use crate::client::{Authorities, Client, Proof};
use crate::exit::Exit;
use crate::output::{Output, grouped};
use crate::problem::Problem;
use director::Director;
use fleet::Fleet;
use policy::PRODUCTION;
use summary::Summary;
use traffic::Traffic;

/// Runs the demo until its end, or until Ctrl-C.
///
/// # Errors
/// It could not start, or something failed that should not.
pub(crate) async fn run(args: &Demo, output: &Output) -> anyhow::Result<Exit> {
    if args.kinds {
        return kinds::run(args, output).await;
    }
    crate::commands::serving::start_logs_if_asked()?;
    let mut interrupted = std::pin::pin!(crate::commands::serving::asked_to_stop()?);
    let mut fleet = Fleet::start_server(args.data.as_deref(), args.port).await?;
    output.line(format!("ready: {}", fleet.url()))?;
    let result = {
        let mut director = Director::new(logged_in(&fleet).await?, fleet.url(), output)?;
        let result = tokio::select! {
            result = play(args, &mut fleet, &mut director, output) => result,
            // With `--exit` a 0 says that the story ended well, so its being cut short is something else.
            () = &mut interrupted => Ok(if args.exit { Exit::Interrupted } else { Exit::Done }),
        };
        director.curtain();
        // Customers go before the nodes do, so that nobody is sent away.
        let counters = director.stop_traffic().await;
        if !output.is_json() && !args.exit && counters.answers() > 0 {
            output.line(format!(
                "{} requests answered, {} dropped",
                grouped(counters.answers()),
                grouped(counters.dropped_total())
            ))?;
        }
        result
    };
    tokio::select! {
        stopped = fleet.shutdown() => stopped?,
        () = crate::commands::serving::asked_to_stop()? => {}
    }
    result
}

/// The demo is a client of its own server as anybody is.
async fn logged_in(fleet: &Fleet) -> anyhow::Result<Client> {
    let client = Client::new(&fleet.url(), &Authorities::default())?;
    let [admin, ..] = DEMO_ACCOUNTS;
    let logged_in = client.login(admin.username, &admin.password.into()).await?;
    Ok(client.with(Proof::of(&logged_in)))
}

async fn play(
    args: &Demo,
    fleet: &mut Fleet,
    director: &mut Director<'_>,
    output: &Output,
) -> anyhow::Result<Exit> {
    fleet.start_agents(&director.client).await?;
    story::prepare(director, fleet.signer()).await?;
    let stable = story::stable_version(director).await?;
    match stable.as_deref() {
        None => {
            let first =
                story::deploy(director, story::FIRST, "the release that the fleet begins with").await?;
            if first.deployment.status != "Succeeded" {
                let why = first.deployment.message.unwrap_or_default();
                return Err(Problem::failed(format!("{} did not go out: {why}", story::FIRST)).into());
            }
        }
        Some(version) if args.idle || version == story::FIRST => {
            director.tell(format!("{PRODUCTION} runs {} {version} already", view::MODULE))?;
        }
        Some(version) => {
            return Err(Problem::usage(format!(
                "this folder's fleet runs {} {version} already",
                view::MODULE
            ))
            .next("`--idle` goes on with it; the story needs an empty folder, or none")
            .into());
        }
    }
    director.set_traffic(Traffic::start(fleet.targets())?);
    if args.idle {
        director.rest("the fleet is up and has customers; it waits for you".to_owned());
        director.tell("customers send payments to every node; the fleet waits for you")?;
        director.curtain();
        what_next(fleet, output)?;
        return idle(director).await;
    }
    let summary = tell(director, args.exit).await?;
    director.curtain();
    summary.show(output)?;
    if args.exit {
        return Ok(if summary.faults.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        });
    }
    what_next(fleet, output)?;
    idle(director).await
}

/// The story itself.
async fn tell(director: &mut Director<'_>, leaving: bool) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let good = story::deploy(
        director,
        story::GOOD,
        "accepts two more currencies, and quotes fees",
    )
    .await?;
    let bad = story::deploy(director, story::BAD, "prices by the card's issuer").await?;
    let took = began.elapsed();
    story::aftermath(director).await?;
    let reached = director.reached(story::BAD);
    // Whoever leaves waits for the answers that are on their way: they count, too.
    let counters = if leaving {
        director.stop_traffic().await
    } else {
        director.counters()
    };
    Ok(Summary::new(&good, &bad, reached, took, &counters))
}

/// Stays up until it is told to stop.
async fn idle(director: &Director<'_>) -> anyhow::Result<Exit> {
    let _customers_stay = director;
    std::future::pending().await
}

fn what_next(fleet: &Fleet, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(());
    }
    let url = fleet.url();
    // The default address needs no flag.
    let server = if url == crate::args::SERVER_URL {
        String::new()
    } else {
        format!(" --server {url}")
    };
    let lines = [
        String::new(),
        "The fleet stays up until Ctrl-C. Try, in another terminal:".to_owned(),
        format!(
            "  hotswap{server} login admin      the password is {}",
            DEMO_ACCOUNTS[0].password
        ),
        format!("  hotswap{server} module list"),
        format!("  hotswap{server} deploy order-management 3.0.0 --to Production --watch"),
        format!("  hotswap{server} deployments"),
        format!("  hotswap{server} why ID"),
        format!("  hotswap{server} nodes --env Production"),
    ];
    for line in lines {
        output.line(line)?;
    }
    if let Some(ingress) = fleet.ingress_of(PRODUCTION) {
        output.line(format!("  curl http://{ingress}/payments/health"))?;
    }
    Ok(())
}
