//! Deployments created at a rate, each durable before it is acknowledged, and reads meanwhile: plainly and over TLS, in
//! turn.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setting;
use crate::load::{Measured, Target, anew, closed, median, open};
use crate::modules;
use crate::processes::{Api, Server, ServerOptions, Speaks};
use crate::report::{Figure, Report, Target as Wanted};

/// Creations a second.
const PER_SECOND: f64 = 500.0;
const CONNECTIONS: usize = 64;
/// Reads a second while deployments are created.
const READS_PER_SECOND: f64 = 50.0;
/// Rounds of each side; all of a side's creations stay below the most that may be unfinished at once.
const ROUNDS: usize = 5;

const HEALTH: &str = "/health";
const METRICS: &str = "/api/v1/clusters/Development/metrics";

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section(&format!(
        "Creating {PER_SECOND:.0} deployments a second on SQLite, by a user with a token, plainly and over TLS in turn"
    ));
    let mut sides = [
        Side::start(setting, "plain", Speaks::Plainly).await?,
        Side::start(setting, "over TLS", Speaks::Tls).await?,
    ];
    for side in &sides {
        side.reads(setting, report).await?;
    }
    let time = setting.seconds(2.0, 15.0) / u32::try_from(ROUNDS)?;
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.round(time).await?;
        }
    }
    for side in &mut sides {
        side.tell(report)?;
    }
    tell_difference(report, &sides);
    handshakes(setting, report, &sides).await
}

/// A server that is spoken to in one way.
struct Side {
    how: &'static str,
    server: Server,
    api: Api,
    created: Measured,
    health: Measured,
    metrics: Measured,
    rounds: Vec<Round>,
}

/// What one round came to.
struct Round {
    median_ms: f64,
    p99_ms: f64,
    /// The server's processor time for a creation and the reads beside it, in µs.
    cpu_us: f64,
}

impl Side {
    async fn start(setting: &Setting, how: &'static str, speaks: Speaks) -> Result<Self> {
        let binary = setting.hotswap();
        let server = Server::start(&ServerOptions {
            api: speaks,
            ..ServerOptions::plain(&binary, setting.dir.join(format!("create {how}")))
        })
        .await?;
        let api = server.api().await?;
        let package = modules::package(&setting.root, modules::MODULE, modules::VERSION)?;
        api.push(&package).await?;
        Ok(Self {
            how,
            server,
            api,
            created: Measured::default(),
            health: Measured::default(),
            metrics: Measured::default(),
            rounds: Vec::new(),
        })
    }

    /// Reads of a server that does nothing else.
    async fn reads(&self, setting: &Setting, report: &mut Report) -> Result<()> {
        let time = setting.seconds(0.3, 2.0);
        for (name, path, target) in [("health", HEALTH, 1.0), ("cluster metrics", METRICS, 5.0)] {
            let load = closed(&self.api.target("GET", path, None, 200), 1, time).await?;
            ensure!(load.failed == 0, "{path}: {:?}", load.first_failure);
            self.tell_read(report, name, "idle", &load, target);
        }
        Ok(())
    }

    async fn round(&mut self, time: Duration) -> Result<()> {
        let create = creation(&self.api, modules::MODULE, modules::VERSION);
        let cpu = self.server.child.cpu_seconds()?;
        let (created, health, metrics) = tokio::join!(
            open(&create, CONNECTIONS, PER_SECOND, time),
            read(&self.api, HEALTH, time),
            read(&self.api, METRICS, time),
        );
        // Checks go on after their creation was answered: they are its costs, and not the other side's noise.
        self.server.child.at_rest().await?;
        let (created, cpu) = (created?, self.server.child.cpu_seconds()? - cpu);
        self.rounds.push(Round {
            median_ms: created.latency_ms(0.5),
            p99_ms: created.latency_ms(0.99),
            cpu_us: cpu * 1e6 / created.answered as f64,
        });
        self.created.join(created);
        self.health.join(health?);
        self.metrics.join(metrics?);
        Ok(())
    }

    fn tell(&mut self, report: &mut Report) -> Result<()> {
        report.say(&format!(
            "{}: {} created in {:.1} s",
            self.how, self.created.answered, self.created.seconds
        ));
        tell_created(report, self.how, &self.created);
        report.add(Figure::new(
            format!(
                "the server's processor time for one, its checks and the reads among it, {}",
                self.how
            ),
            median(&self.each(|round| round.cpu_us)),
            "µs",
        ));
        self.tell_read(report, "health", "while creating", &self.health, 1.0);
        self.tell_read(report, "cluster metrics", "while creating", &self.metrics, 5.0);
        let memory = self.server.child.memory_mib()?;
        report.add(Figure::new(format!("memory then, {}", self.how), memory, "MiB"));
        Ok(())
    }

    fn tell_read(&self, report: &mut Report, name: &str, when: &str, load: &Measured, target: f64) {
        let what = |quantile: &str| format!("{name}, {when}, {quantile}, {}", self.how);
        report.add(Figure::new(what("median"), load.latency_ms(0.5), "ms"));
        report.add(Figure::new(what("p99"), load.latency_ms(0.99), "ms").wants(Wanted::AtMost(target)));
    }

    fn each(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(of).collect()
    }
}

/// A creation, over and over.
pub(super) fn creation(api: &Api, module: &str, version: &str) -> Target {
    let body = Api::deployment(module, version);
    api.target("POST", "/api/v1/deployments", Some(&body), 202)
}

fn tell_created(report: &mut Report, how: &str, created: &Measured) {
    if let Some(failure) = &created.first_failure {
        report.say(&format!("{} refused, the first: {failure}", created.failed));
    }
    report.add(Figure::new(
        format!("create, median, {how}"),
        created.latency_ms(0.5),
        "ms",
    ));
    report.add(
        Figure::new(format!("create, p99, {how}"), created.latency_ms(0.99), "ms")
            .wants(Wanted::AtMost(10.0)),
    );
}

/// What TLS adds: the medians of the rounds' differences.
fn tell_difference(report: &mut Report, [plain, tls]: &[Side; 2]) {
    let difference = |of: fn(&Round) -> f64| {
        let pairs = plain.rounds.iter().zip(&tls.rounds);
        median(&pairs.map(|(plain, tls)| of(tls) - of(plain)).collect::<Vec<_>>())
    };
    report.add(Figure::new(
        "TLS adds to a create, median",
        difference(|round| round.median_ms) * 1e3,
        "µs",
    ));
    report.add(Figure::new(
        "TLS adds to a create, p99",
        difference(|round| round.p99_ms) * 1e3,
        "µs",
    ));
    report.add(Figure::new(
        "TLS adds to the server's processor time for a create",
        difference(|round| round.cpu_us),
        "µs",
    ));
    let ratios = plain.rounds.iter().zip(&tls.rounds);
    let ratios: Vec<f64> = ratios.map(|(plain, tls)| plain.cpu_us / tls.cpu_us).collect();
    report.add(Figure::ratio(
        "create plain/TLS",
        "the server's processor time for a create, plain, of that over TLS",
        median(&ratios),
    ));
}

async fn read(api: &Api, path: &str, time: Duration) -> Result<Measured> {
    open(&api.target("GET", path, None, 200), 4, READS_PER_SECOND, time).await
}

/// A connection for every request, so that each begins with a handshake.
async fn handshakes(setting: &Setting, report: &mut Report, [plain, tls]: &[Side; 2]) -> Result<()> {
    let time = setting.seconds(0.5, 5.0);
    let secure = tls.server.endpoint()?;
    let whole = secure.without_resumption();
    let ways = [
        ("plain", plain, plain.server.endpoint()?),
        ("TLS, whole handshakes", tls, whole),
        ("TLS, sessions that are resumed", tls, secure),
    ];
    for (how, side, endpoint) in ways {
        let target = Target {
            endpoint,
            ..side.api.target("GET", HEALTH, None, 200)
        };
        let cpu = side.server.child.cpu_seconds()?;
        let asked = anew(&target, time).await?;
        let cpu = (side.server.child.cpu_seconds()? - cpu) * 1e6 / asked.answered as f64;
        report.add(Figure::new(
            format!("a connection and health, median, {how}"),
            asked.latency_ms(0.5) * 1e3,
            "µs",
        ));
        report.add(Figure::new(
            format!("the server's processor time for both, {how}"),
            cpu,
            "µs",
        ));
    }
    Ok(())
}
