//! A module behind the ingress, beside its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::{Setting, metering};
use crate::load::{Connection, Endpoint, Target, closed, median};
use crate::modules;
use crate::processes::Wasmtime;
use crate::report::{Figure, Report, Target as Wanted};
use crate::serve::{Served, What, otlp_sink};

/// Requests that an instance serves: the product's default, so that the peer gets as much.
const REUSE: u32 = 10_000;

/// By name: answers a second of each round.
type Rounds = BTreeMap<&'static str, Vec<f64>>;

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section("A module's throughput (GET /smoke), answers a second");
    let (folder, dir) = (modules::folder(&setting.root), setting.dir.as_path());
    let sink = otlp_sink().await?;
    let sink = format!("http://{sink}");
    let metered = Served::start(What::Ingress, &folder, dir, &[]).await?;
    let traced = Served::start(What::Ingress, &folder, dir, &[("--otlp", &sink)]).await?;
    let alone = Served::start(What::Alone, &folder, dir, &[]).await?;
    let (head, body) = answer_of(metered.address).await?;
    let bare = Served::start(What::Bare, &folder, dir, &[("--head", &head), ("--body", &body)]).await?;
    let mut servers = vec![
        ("ingress", metered.address),
        ("ingress, 1 % traced", traced.address),
        ("module alone", alone.address),
        ("bare hyper", bare.address),
    ];
    let mut peers = Vec::new();
    if let Some(binaries) = &setting.peers {
        let component = modules::component(&setting.root);
        for (name, reuse) in [("wasmtime serve", None), ("wasmtime serve, reuse", Some(REUSE))] {
            let log = dir.join("wasmtime.log");
            let peer = Wasmtime::start(binaries, &component, reuse, &log).await?;
            servers.push((name, peer.address));
            peers.push(peer);
        }
    }
    let (rounds, time) = (setting.pick(2, 5), setting.seconds(0.35, 0.8));
    let levels: &[usize] = setting.pick(&[16, 64], &[1, 16, 64, 256]);
    let (mut ratios, mut fastest) = (BTreeMap::<&str, Vec<f64>>::new(), 0.0_f64);
    for &connections in levels {
        let mut measured = Rounds::new();
        for round in 0..=rounds {
            for (name, address) in &servers {
                let target = Target::get(*address, modules::PATH);
                let load = closed(&target, connections, time).await?;
                ensure!(load.failed == 0, "{name} failed: {:?}", load.first_failure);
                // The first round warms.
                if round > 0 {
                    measured.entry(name).or_default().push(load.per_second());
                }
            }
        }
        tell(report, connections, &measured);
        fastest = fastest.max(measured.get("ingress").map_or(0.0, |rounds| median(rounds)));
        for (name, _) in &servers {
            ratios
                .entry(name)
                .or_default()
                .extend(of(&measured, "ingress", name));
        }
        let traced = of(&measured, "ingress, 1 % traced", "module alone");
        ratios.entry("traced of alone").or_default().extend(traced);
        let traced = of(&measured, "ingress, 1 % traced", "ingress");
        ratios.entry("traced of ingress").or_default().extend(traced);
    }
    summary(report, &ratios);
    let metering = metering::nanoseconds(setting);
    report.add(Figure::new("metering a request, of one core", metering, "ns"));
    // As if one core did all of the ingress's work: the share is smaller where more of them share it.
    let metered = 1.0 - metering * fastest / 1e9;
    report.add(Figure::ratio(
        "metered/unmetered",
        "metered: of the same without, at its highest rate (computed)",
        metered,
    ));
    let traced = ratios
        .get("traced of ingress")
        .map_or(f64::NAN, |rounds| median(rounds));
    report.add(
        Figure::ratio(
            "traced+metered/neither",
            "metered and 1 % traced: of neither (the two multiplied)",
            metered * traced,
        )
        .wants(Wanted::AtLeast(0.97)),
    );
    Ok(())
}

/// One server's answers a second as multiples of another's, round by round.
fn of(measured: &Rounds, one: &str, other: &str) -> Vec<f64> {
    let (Some(one), Some(other)) = (measured.get(one), measured.get(other)) else {
        return Vec::new();
    };
    one.iter().zip(other).map(|(one, other)| one / other).collect()
}

fn tell(report: &mut Report, connections: usize, measured: &Rounds) {
    let told: Vec<String> = measured
        .iter()
        .map(|(name, rounds)| {
            let ratio = median(&of(measured, "ingress", name));
            format!("{name} {:.0} ({ratio:.2})", median(rounds))
        })
        .collect();
    report.say(&format!(
        "{connections} connections (ingress as multiples of it): {}",
        told.join("; ")
    ));
}

fn summary(report: &mut Report, ratios: &BTreeMap<&str, Vec<f64>>) {
    for (name, guard, what, target) in [
        (
            "wasmtime serve",
            "ingress/wasmtime",
            "the ingress as a multiple of wasmtime serve as it comes",
            Some(3.0),
        ),
        (
            "wasmtime serve, reuse",
            "ingress/wasmtime-reuse",
            "… of wasmtime serve with the same instance reuse",
            Some(1.0),
        ),
        (
            "bare hyper",
            "ingress/hyper",
            "… of bare hyper with the same bytes",
            Some(0.35),
        ),
        (
            "traced of alone",
            "traced/alone",
            "routed, metered, 1 % traced: of the module alone, with no ingress",
            None,
        ),
        (
            "traced of ingress",
            "traced/ingress",
            "1 % traced: of the ingress without tracing",
            None,
        ),
    ] {
        let rounds = ratios.get(name).filter(|rounds| !rounds.is_empty());
        if let Some(rounds) = rounds {
            let figure = Figure::ratio(guard, what, median(rounds));
            report.add(match target {
                Some(target) => figure.wants(Wanted::AtLeast(target)),
                None => figure,
            });
        }
    }
}

/// What a server answers: its head without what hyper adds by itself, and its body.
async fn answer_of(address: SocketAddr) -> Result<(String, String)> {
    let mut connection = Connection::open(&Endpoint::plain(address)).await?;
    let answer = connection
        .ask(&Target::get(address, modules::PATH).request)
        .await?;
    let head = connection.head(&answer);
    let lines = head.lines().skip(1).filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !line.is_empty() && !["date", "content-length"].contains(&name)
    });
    let body = String::from_utf8(connection.body(&answer).to_vec())?;
    Ok((lines.collect::<Vec<_>>().join("\n"), body))
}
