//! Swaps under load: what they take, and what users notice.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::Setting;
use crate::load::{Target, closed, median, open, quantile};
use crate::modules;
use crate::report::{Figure, Report, Target as Wanted};
use crate::serve::module::Swap;
use crate::serve::{Served, What};

const CONNECTIONS: usize = 64;
/// How long memory may take to come back: idle instances are freed within a second or two.
const REST: Duration = Duration::from_secs(4);

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section("Swaps under load");
    let folder = modules::folder(&setting.root);
    let mut served = Served::start(What::Ingress, &folder, &setting.dir, &[]).await?;
    let mut swapper = Swapper::of(&mut served)?;
    let target = Target::get(served.address, modules::PATH);
    let full = closed(&target, CONNECTIONS, setting.seconds(0.5, 3.0)).await?;
    tokio::time::sleep(REST).await;
    let before = served.child.memory_mib()?;

    // Long enough for a million requests, with a tenth to spare.
    let wanted = setting.pick(30_000.0, 1_100_000.0);
    let time = Duration::from_secs_f64(wanted / full.per_second());
    let swaps = setting.pick(10, 100);
    let (stop, swapping) = swapper.every(time / (swaps + 1));
    let load = closed(&target, CONNECTIONS, time).await?;
    let _ = stop.send(());
    let (taken, back) = swapping.await??;
    swapper = back;
    report.add(
        Figure::new(
            format!(
                "failed of {} requests over {} swaps at full load",
                load.answered + load.failed,
                taken.len()
            ),
            load.failed as f64,
            "",
        )
        .wants(Wanted::Exactly(0.0)),
    );
    report.add(Figure::ratio(
        "swapping/steady",
        "answers a second while swapping, of those without",
        load.per_second() / full.per_second(),
    ));
    tell(report, &taken);
    tokio::time::sleep(REST).await;
    let after = served.child.memory_mib()?;
    report.add(Figure::new(
        format!("memory after them, where it was {before:.1} MiB before"),
        after,
        "MiB",
    ));
    half(setting, report, &target, full.per_second() / 2.0, swapper).await
}

fn tell(report: &mut Report, swaps: &[Swap]) {
    let of = |part: fn(&Swap) -> f64| swaps.iter().map(part).collect::<Vec<_>>();
    let (load, switch, drain) = (
        of(|swap| swap.load_ms),
        of(|swap| swap.switch_us),
        of(|swap| swap.drain_ms),
    );
    report.add(Figure::new(
        "the switch of a node's route, median",
        median(&switch),
        "µs",
    ));
    report.add(Figure::new("… p99", quantile(&switch, 0.99), "µs"));
    report.add(Figure::new(
        "load of the next release under full load, median",
        median(&load),
        "ms",
    ));
    report.add(Figure::new(
        "drain of the former one under full load, median",
        median(&drain),
        "ms",
    ));
}

/// At half load: latencies with and without swaps, in turn.
async fn half(
    setting: &Setting,
    report: &mut Report,
    target: &Target,
    per_second: f64,
    mut swapper: Swapper,
) -> Result<()> {
    let time = setting.seconds(1.0, 5.0);
    let (mut with, mut without, mut failed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..setting.pick(2, 5) {
        let quiet = open(target, CONNECTIONS, per_second, time).await?;
        without.push(quiet.latency_ms(0.999));
        let (stop, swapping) = swapper.every(Duration::from_millis(250));
        let swapped = open(target, CONNECTIONS, per_second, time).await?;
        let _ = stop.send(());
        (_, swapper) = swapping.await??;
        with.push(swapped.latency_ms(0.999));
        failed += quiet.failed + swapped.failed;
    }
    report.add(Figure::new("failed at half load", failed as f64, "").wants(Wanted::Exactly(0.0)));
    report.add(Figure::new(
        "p99.9 at half load, no swaps",
        median(&without),
        "ms",
    ));
    report.add(Figure::new("… with 4 swaps a second", median(&with), "ms"));
    let more: Vec<f64> = with
        .iter()
        .zip(&without)
        .map(|(with, without)| with - without)
        .collect();
    report.add(
        Figure::new("… more than without, median of the rounds", median(&more), "ms")
            .wants(Wanted::AtMost(1.0)),
    );
    Ok(())
}

/// Asks an ingress's process for swaps.
struct Swapper {
    commands: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

type Swapping = tokio::task::JoinHandle<Result<(Vec<Swap>, Swapper)>>;

impl Swapper {
    fn of(served: &mut Served) -> Result<Self> {
        let child = served.child.inner();
        Ok(Self {
            commands: child.stdin.take().context("stdin is piped")?,
            answers: BufReader::new(child.stdout.take().context("stdout is piped")?),
        })
    }

    fn swap(&mut self) -> Result<Swap> {
        self.commands.write_all(b"swap\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the ingress's process gave no answer to a swap")
    }

    /// Swaps at this pace on a thread of its own until it is told to stop.
    fn every(mut self, pace: Duration) -> (oneshot::Sender<()>, Swapping) {
        let (stop, mut stopped) = oneshot::channel();
        let swapping = tokio::task::spawn_blocking(move || {
            let (began, mut swaps) = (Instant::now(), Vec::new());
            loop {
                let due = pace * (u32::try_from(swaps.len())? + 1);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                if stopped.try_recv().is_ok() {
                    return Ok((swaps, self));
                }
                swaps.push(self.swap()?);
            }
        });
        (stop, swapping)
    }
}
